//! The API's TCP listener.
//!
//! Owns accepting clients, their number, what is buffered for each, the time they may take to send a request head and to take what is
//! written to them, and TCP_NODELAY (without it each token waits for the next). Refuses to hold more connections than the bound: the rest waits in the kernel's backlog. At the
//! stop, running answers may end within the drain time; what is still running then is cut.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::patience::Patience;

/// After a failed accept (out of descriptors) the loop takes a breath instead of spinning.
const ACCEPT_BREATH: Duration = Duration::from_millis(50);

/// Serves `router` until `stop`, then drains; for long, if the registry `failed`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    failed: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::API_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while let Some((stream, place)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let connection = graceful.watch(connection(stream, router.clone()));
        tokio::spawn(async move {
            // A client that hangs up is an error only to itself.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    let drain = if failed.is_cancelled() { limits::LAST_ANSWERS } else { limits::DRAIN };
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers still running after the drain time were cut");
    }
}

type Connection<S> = http1::Connection<TokioIo<Patience<S>>, TowerToHyperService<Router>>;

fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, router: Router) -> Connection<S> {
    let mut http = http1::Builder::new();
    // Never `pipeline_flush`: with it hyper buffers whatever there is to write, also for a client that reads nothing.
    http.timer(TokioTimer::new()).header_read_timeout(limits::API_HEADER_READ);
    http.max_buf_size(limits::API_BUFFER_BYTES);
    let stream = Patience::new(stream, limits::API_WRITE_STALL);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a client failed");
                tokio::time::sleep(ACCEPT_BREATH).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const PIECE: usize = 16 * 1024;
    const FILE: usize = 4_096 * PIECE;

    /// `/file` is long, `/` is short; counts the bytes of the one and the requests for the other.
    fn counting(counted: &Arc<AtomicUsize>) -> Router {
        let (bytes, requests) = (counted.clone(), counted.clone());
        let file = move || async move {
            let pieces = (0..FILE / PIECE).map(move |_| {
                bytes.fetch_add(PIECE, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Bytes::from(vec![0; PIECE]))
            });
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let short = move || async move {
            requests.fetch_add(1, Ordering::Relaxed);
            "a short answer"
        };
        Router::new().route("/file", get(file)).route("/", get(short))
    }

    /// What a client that sends `heads` and reads nothing makes the server do, until it is given up.
    async fn deaf(heads: String) -> usize {
        let counted = Arc::<AtomicUsize>::default();
        let (near, mut far) = duplex(1024);
        let asking = async {
            // The server may have enough of it before the last head.
            let _ = far.write_all(heads.as_bytes()).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = connection(near, counting(&counted)) => assert!(ended.is_err(), "nobody took the answer"),
            () = asking => {}
        }
        counted.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_of_a_long_answer_is_given_up_and_little_is_read_for_it() {
        let read = deaf("GET /file HTTP/1.1\r\nhost: mini\r\n\r\n".to_owned()).await;
        assert!(read <= 2 * limits::API_BUFFER_BYTES, "{read} bytes wait for a client that reads nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_not_read_on_while_nobody_reads_the_answers() {
        let answered = deaf("GET / HTTP/1.1\r\nhost: mini\r\n\r\n".repeat(100_000)).await;
        let most = 2 * limits::API_BUFFER_BYTES / "a short answer".len();
        assert!(answered <= most, "{answered} requests of a client that reads nothing were answered");
    }
}
