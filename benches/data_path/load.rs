//! The load: streamed completions over kept-alive connections, as few instructions as a client can spend.

use std::io::{BufRead as _, BufReader, Error, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::room::{MODEL, Room};

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) requests: usize,
    pub(crate) tokens: usize,
    pub(crate) streams: usize,
}

/// Runs the shape; returns each request's time to its first token.
pub(crate) fn run(room: &Room, shape: Shape) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let each = shape.requests / shape.streams;
        let threads: Vec<_> = (0..shape.streams)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(&room.api).expect("the API is there");
                    (0..each).map(|_| client.ask(shape.tokens).expect("an answer")).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client thread")).collect()
    })
}

/// One request on a connection of its own.
pub(crate) fn once(api: &str, tokens: usize) -> Result<Duration, Error> {
    Client::connect(api)?.ask(tokens)
}

pub(crate) fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

struct Client {
    reader: BufReader<TcpStream>,
    host: String,
}

impl Client {
    fn connect(api: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::new(stream), host: api.to_owned() })
    }

    fn ask(&mut self, tokens: usize) -> Result<Duration, Error> {
        let body = format!(
            r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"Say something."}}],"max_tokens":{tokens},"stream":true,"temperature":0}}"#
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let started = Instant::now();
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (mut first, mut line) = (None, String::new());
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(Error::other("the answer broke off"));
            }
            if line.starts_with("HTTP/1.1") && !line.starts_with("HTTP/1.1 200") {
                return Err(Error::other(line.trim().to_owned()));
            }
            if first.is_none() && line.contains("\"content\":\"") && !line.contains("\"content\":\"\"") {
                first = Some(started.elapsed());
            }
            // The last chunk of a chunked body; the empty line after it belongs to it.
            if line == "0\r\n" {
                self.reader.read_line(&mut line)?;
                return Ok(first.unwrap_or_else(|| started.elapsed()));
            }
        }
    }
}
