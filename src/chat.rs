//! `mlx-serving chat`: one question, or a conversation.
//!
//! Owns the terminal side of a conversation. Refuses to keep anything: what was said is gone with the process.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use crate::api::{Api, Message};
use crate::cli::Chat;

pub(crate) fn run(options: &Chat) -> anyhow::Result<()> {
    let api = Api::of(&options.api)?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => api.default_model()?,
    };
    let system = options.system.iter().map(|text| Message { role: "system", content: text.clone() });
    let mut messages: Vec<Message> = system.collect();
    if let Some(prompt) = &options.prompt {
        return ask(&api, &model, &mut messages, prompt.clone());
    }
    if !std::io::stdin().is_terminal() {
        let mut prompt = String::new();
        std::io::stdin().read_to_string(&mut prompt)?;
        return ask(&api, &model, &mut messages, prompt);
    }
    converse(&api, &model, &mut messages)
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn converse(api: &Api, model: &str, messages: &mut Vec<Message>) -> anyhow::Result<()> {
    eprintln!("talking to {model}; an empty line or Ctrl-D ends");
    let mut lines = std::io::stdin().lock().lines();
    loop {
        eprint!("> ");
        match lines.next().transpose()? {
            Some(line) if !line.trim().is_empty() => {
                // A refused question (too long, say) is no reason to lose the conversation.
                if let Err(error) = ask(api, model, messages, line) {
                    eprintln!("{error:#}");
                    messages.pop();
                }
            }
            Some(_) | None => return Ok(()),
        }
    }
}

fn ask(api: &Api, model: &str, messages: &mut Vec<Message>, prompt: String) -> anyhow::Result<()> {
    messages.push(Message { role: "user", content: prompt });
    let mut out = std::io::stdout();
    let answer = api.chat(model, messages, |piece| {
        // A closed pipe ends us at the next line anyway.
        let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
    })?;
    writeln!(std::io::stdout())?;
    messages.push(Message { role: "assistant", content: answer });
    Ok(())
}
