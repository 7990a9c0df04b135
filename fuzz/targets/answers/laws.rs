//! The law of a streamed answer as the command line reads it: what is handed on piece by piece is the whole, however the stream
//! comes in.

use super::read;

pub(crate) fn answers(bytes: &[u8]) {
    let heard = |capacity: usize| {
        let mut pieces = String::new();
        let answer = read(std::io::BufReader::with_capacity(capacity, bytes), |piece| pieces.push_str(piece));
        (answer.map_err(|why| why.to_string()), pieces)
    };
    let (answer, pieces) = heard(8_192);
    assert!(pieces.len() <= bytes.len());
    if let Ok(answer) = &answer {
        assert_eq!(*answer, pieces);
    }
    assert_eq!(heard(3), (answer, pieces), "how it comes in changes what is read");
}

#[cfg(test)]
#[path = "../../replay.rs"]
mod replay;

#[test]
fn what_is_handed_on_piece_by_piece_is_the_whole_answer() {
    replay::replay("answers", answers);
}
