//! Where chat templates are compiled and rendered: in processes that hold nothing and may be killed.
//!
//! A template comes with a model that somebody downloaded. Its fuel does not count what is done to values that share their parts:
//! twenty bytes of it are work for a century, or fill the memory. Owns the renderers (`pool`), one of them on this side (`renderer`) and
//! on its own (`child`), what the two say to one another (`frames`), and what a template may still ask for after it has ended some
//! (`standing`). Refuses to let one template's deeds reach a request of another.

mod pool;
mod renderer;
pub(super) mod frames;
mod child;
mod standing;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::chat_template::ChatTemplate;
use super::template::Conversation;

pub use child::render_templates;
pub(crate) use pool::Renderers;
pub(crate) use standing::Standing;

/// Somebody who renders.
pub(crate) trait Render: Send + Sync {
    /// The prompt; nothing, where it was only asked whether the template compiles.
    fn render(&self, task: Task) -> Rendering<'_>;
}

pub(crate) type Rendering<'a> = Pin<Box<dyn Future<Output = Result<String, RenderError>> + Send + 'a>>;

/// One question about one template.
pub(crate) struct Task {
    template: Arc<ChatTemplate>,
    /// For the log: the model, or where its template comes from.
    about: String,
    question: Vec<u8>,
}

impl Task {
    pub(crate) fn rendering(
        template: &Arc<ChatTemplate>,
        model: &str,
        conversation: Conversation,
    ) -> Result<Self, RenderError> {
        Self::of(template, model, Some(conversation))
    }

    pub(crate) fn compiling(template: &Arc<ChatTemplate>, about: &str) -> Result<Self, RenderError> {
        Self::of(template, about, None)
    }

    fn of(
        template: &Arc<ChatTemplate>,
        about: &str,
        conversation: Option<Conversation>,
    ) -> Result<Self, RenderError> {
        let question = template.question(conversation).ok_or(RenderError::OutOfBounds)?;
        Ok(Self { template: template.clone(), about: about.to_owned(), question })
    }
}

/// Why there is no prompt. The words quote no message but where the template does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RenderError {
    /// The template itself refused the messages.
    #[error("the chat template refused: {0}")]
    Raised(String),
    #[error("the chat template takes more than its bounds")]
    OutOfBounds,
    /// It does not compile, or failed; in the engine's words.
    #[error("{0}")]
    Failed(String),
    /// It has ended so many renderers in a row that it is not tried for a while.
    #[error("the chat template has taken more than its bounds several times in a row")]
    Refused { again_in: Duration },
    #[error("too much else is rendered at the moment")]
    Busy,
    /// Two in a row, and it is not known by what.
    #[error("the processes that render ended in the middle")]
    Lost,
    #[error("no process that renders could be started")]
    NotStarted,
}

/// For tests without processes: the same question and the same answer, in the process itself.
#[cfg(test)]
pub(crate) struct Here;

#[cfg(test)]
impl Here {
    pub(crate) fn rendered(
        template: &Arc<ChatTemplate>,
        conversation: Conversation,
    ) -> Result<String, RenderError> {
        Self::answered(&Task::rendering(template, "demo", conversation)?)
    }

    fn answered(task: &Task) -> Result<String, RenderError> {
        let answer = child::Templates::default().answer(&task.question).encode();
        rmp_serde::from_slice::<frames::Answer>(&answer).expect("an answer").result()
    }
}

#[cfg(test)]
impl Render for Here {
    fn render(&self, task: Task) -> Rendering<'_> {
        Box::pin(async move { Self::answered(&task) })
    }
}

#[cfg(test)]
mod tests;
