//! The renderers of a coordinator: a few, started when they are needed, used again, replaced when they die.
//!
//! Owns the places and who gets the next one. A template has a few turns and a pause after it has ended several renderers in a row, so
//! the others always find a place. Refuses to believe one death: what a renderer did before, or somebody with a `kill`, may be the cause,
//! so the question is asked once more of one that has done nothing yet.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::frames::Answer;
use super::renderer::{Loss, Renderer};
use super::{Render, RenderError, Rendering, Task};
use crate::config::RendererProgram;
use crate::gateway::limits;

#[derive(Clone)]
pub(crate) struct Renderers {
    pool: Arc<Pool>,
}

struct Pool {
    program: RendererProgram,
    /// Never closed.
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Renderer>>,
    /// One start at a time: where a pipe can be made before it is marked as ours alone, two children would hold each other's input open.
    starting: Mutex<()>,
}

impl Render for Renderers {
    fn render(&self, task: Task) -> Rendering<'_> {
        Box::pin(async move {
            let turn = timeout(limits::RENDERING_TURN, self.turn(&task)).await;
            let turn = turn.map_err(|_| RenderError::Busy)??;
            // A client that goes away leaves its place in the line. What has begun is soon over, and its renderer is used again.
            let worked = tokio::spawn(self.pool.clone().work(task, turn));
            worked.await.unwrap_or(Err(RenderError::Lost))
        })
    }
}

/// To be held until the renderer is back.
struct Turn {
    _of_template: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Renderers {
    pub(crate) fn new(program: RendererProgram) -> Self {
        let places = Arc::new(Semaphore::new(limits::RENDERERS_MAX));
        let pool = Pool { program, places, idle: Mutex::default(), starting: Mutex::default() };
        Self { pool: Arc::new(pool) }
    }

    /// The template's own turn first: who waits for it takes no place from others.
    async fn turn(&self, task: &Task) -> Result<Turn, RenderError> {
        let standing = &task.template.standing;
        let _of_template = standing.turns.clone().acquire_owned().await.map_err(|_| RenderError::Busy)?;
        // Not before: whoever waited behind those that it ended would try it, too.
        if let Some(again_in) = standing.refused(Instant::now()) {
            return Err(RenderError::Refused { again_in });
        }
        let _place = self.pool.places.clone().acquire_owned().await.map_err(|_| RenderError::Busy)?;
        Ok(Turn { _of_template, _place })
    }
}

impl Pool {
    async fn work(self: Arc<Self>, task: Task, _turn: Turn) -> Result<String, RenderError> {
        let standing = &task.template.standing;
        let answered = match self.attempt(self.idle(), &task).await? {
            Err(Loss::Died | Loss::Overflowed) => self.attempt(None, &task).await?,
            first => first,
        };
        let loss = match answered {
            Ok(answer) => {
                standing.kept_within();
                return answer.result();
            }
            Err(loss) => loss,
        };
        standing.struck(Instant::now());
        tracing::warn!(model = task.about, ?loss, "a chat template has ended its renderer");
        match loss {
            Loss::Outlasted | Loss::Overflowed => Err(RenderError::OutOfBounds),
            Loss::Died => Err(RenderError::Lost),
        }
    }

    /// Asks this renderer, or a new one.
    async fn attempt(
        &self,
        idle: Option<Renderer>,
        task: &Task,
    ) -> Result<Result<Answer, Loss>, RenderError> {
        let mut renderer = match idle {
            Some(renderer) => renderer,
            None => self.start().await?,
        };
        let answered = renderer.ask(&task.question).await;
        if answered.is_ok() && renderer.small() {
            self.lock_idle().push(renderer);
        }
        Ok(answered)
    }

    /// The one that worked last, so that in quiet times it is always the same.
    fn idle(&self) -> Option<Renderer> {
        let mut idle = self.lock_idle();
        std::iter::from_fn(|| idle.pop()).find_map(|mut renderer| renderer.alive().then_some(renderer))
    }

    async fn start(&self) -> Result<Renderer, RenderError> {
        let spawned = {
            let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
            Renderer::spawn(&self.program)
        };
        let greeted = async {
            let mut renderer = spawned?;
            match timeout(limits::RENDERER_START, renderer.greeting()).await {
                Ok(greeted) => greeted.map(|()| renderer),
                Err(_) => Err(anyhow::anyhow!("it did not greet within {:?}", limits::RENDERER_START)),
            }
        };
        greeted.await.map_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "no process can be started that renders chat templates: start the coordinator anew if its program was replaced, or see \
                 whether this machine has room for one more process"
            );
            RenderError::NotStarted
        })
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Renderer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
