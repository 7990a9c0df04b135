//! The laws of what a runtime says: cuts change nothing, and nothing swells.

use super::figures::Figures;
use super::frames::{Decoder, FrameError};
use super::incoming::Incoming;
use crate::limits::STEP_WIDTHS_MAX;

/// However the pipe cuts them, the same frames come out; what is read takes no more than was sent; and figures that cannot be
/// leave rates that can.
pub fn runtime_frames(bytes: &[u8]) {
    let whole = read([bytes]);
    let length = bytes.first().map_or(1, |first| usize::from(*first % 7) + 1);
    assert_eq!(
        format!("{whole:?}"),
        format!("{:?}", read(bytes.chunks(length))),
        "the cuts change what is read"
    );
    let mut figures = Figures::default();
    let mut held = 0;
    for frame in whole.0 {
        held += match frame {
            Incoming::Step { rows, stats } => {
                figures.learn(stats);
                let row = |row: &super::frames::RowStep| {
                    let extra = row.3.as_ref().map_or(0, |extra| {
                        extra.logprobs.iter().map(|(_, top)| 1 + top.len()).sum::<usize>() + extra.text.len()
                    });
                    1 + row.1.len() + extra
                };
                rows.iter().map(row).sum()
            }
            Incoming::Error { code, text, .. } => code.len() + text.len(),
            Incoming::Hello(hello) => hello.runtime.len(),
            Incoming::Reply { .. } | Incoming::Progress(_) => 1,
        };
    }
    assert!(held <= bytes.len(), "{held} elements of {} bytes", bytes.len());
    let rates = figures.rates;
    for rate in [rates.prefill_tokens_per_s(), rates.step_ms(), rates.batch_slope()] {
        assert!(rate.is_finite() && rate >= 0.0, "a rate of {rate}");
    }
    let samples = figures.steps.since(&super::step_sums::StepSums::default());
    assert!(samples.len() <= STEP_WIDTHS_MAX && samples.iter().all(|sample| sample.seconds.is_finite()));
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Incoming>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(why) => return (frames, Some(why)),
            }
        }
    }
    (frames, None)
}
