//! Files and batches in words: whose they are, how far each is, and where its bytes are.

use std::fmt::{Result, Write};

use registry::{Batch, KeptAnswer, Registry};

use super::jobs::{run, word};

pub(super) fn files(registry: &Registry, out: &mut String) -> Result {
    for (id, file) in registry.files() {
        let (tenant, name, purpose) = (file.tenant.0, &file.name, file.purpose);
        let (made, until, pieces) = (file.made_at_unix_ms, file.until_unix_ms, pieces(&file.pieces));
        writeln!(out, "  file {id} {name} of {tenant} for {purpose:?}, from {made} until {until}: {pieces}")?;
    }
    Ok(())
}

pub(super) fn batches(registry: &Registry, out: &mut String) -> Result {
    for (id, batch) in registry.batches() {
        let (tenant, status, input) = (batch.tenant.0, batch.status(), &batch.input);
        let key = batch.key.as_ref().map_or(String::new(), |key| format!(" under key {key}"));
        let (attempt, run, expires) = (batch.attempt, run(batch.run), batch.expires_at_unix_ms);
        write!(out, "  batch {id} of {tenant}{key} reads {input} until {expires}: {status:?}, ")?;
        writeln!(out, "attempt {attempt} by {run}, {}", progress(batch))?;
        if !batch.output.is_empty() || !batch.errors.is_empty() {
            writeln!(out, "    answers: {}; errors: {}", pieces(&batch.output), pieces(&batch.errors))?;
        }
        let Some(ended) = &batch.ended else { continue };
        let named =
            |file: &Option<registry::FileId>| file.as_ref().map_or("none".to_owned(), ToString::to_string);
        let (at, output, errors) = (ended.at_unix_ms, named(&ended.output), named(&ended.errors));
        writeln!(out, "    ended at {at}: answers in {output}, errors in {errors}")?;
        for problem in &ended.problems {
            let line = problem.line.map_or(String::new(), |line| format!(" in line {line}"));
            writeln!(out, "    {}{line}: {}", problem.code, problem.message)?;
        }
    }
    Ok(())
}

fn progress(batch: &Batch) -> String {
    let lines = batch.opened.map_or("?".to_owned(), |opened| opened.lines.to_string());
    format!("{} and {} errors of {lines}", batch.progress.completed, batch.progress.failed)
}

fn pieces(pieces: &[KeptAnswer]) -> String {
    let piece = |piece: &KeptAnswer| {
        let holders: Vec<_> = piece.holders.iter().map(ToString::to_string).collect();
        format!("{} of {} bytes on {}", word(piece.digest), piece.bytes, holders.join(" and "))
    };
    if pieces.is_empty() {
        "none".to_owned()
    } else {
        pieces.iter().map(piece).collect::<Vec<_>>().join(", ")
    }
}
