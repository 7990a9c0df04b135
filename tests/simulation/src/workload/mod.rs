//! Who asks for what, when.
//!
//! Owns the description of a workload and how it becomes a list of requests: drawn from the parameters of public traces, or
//! read from a trace file. The pace is stated as a *load*: a share of the most that the fleet could do without any cache, so
//! that one number means the same on any fleet. Refuses to look at the fleet for anything else.

mod lengths;
mod sessions;
mod traces;

use serde::{Deserialize, Serialize};

use self::sessions::Builder;
pub use self::traces::read_trace;
use crate::bounds;
use crate::fleet::Fleet;
use crate::limits::DEADLINE_S;
use crate::request::Workload;

/// Where the requests come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Like Azure's chat service: single prompts, no shared prefixes, an even stream.
    AzureChat,
    /// Like Azure's code completion: long prompts, short answers, very bursty.
    AzureCode,
    /// Like Mooncake's conversations: system prompts, turns that build on one another, pauses between them.
    Conversation,
    /// A trace file: `.csv` as Azure publishes them, `.jsonl` as Mooncake does.
    Trace(String),
}

/// A workload as an experiment describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadPlan {
    /// Where the requests come from.
    pub source: Source,
    /// For how long requests arrive; a trace has its own length.
    pub hours: f64,
    /// The share of the fleet's capacity that is asked for; a trace without it keeps its pace.
    pub load: Option<f64>,
    /// What prompts and answers are multiplied by.
    pub length_scale: f64,
    /// How many tenants ask.
    pub tenants: u32,
    /// How unequal they are: Zipf's exponent; zero for equal ones.
    pub tenant_zipf: f64,
    /// How unequally the models are asked for.
    pub model_zipf: f64,
    /// Coefficients of variation of the time between a tenant's sessions, in turn by tenant. Empty: those of the source.
    pub variations: Vec<f64>,
    /// The share of requests that nobody waits for.
    pub batch_share: f64,
    /// The share of requests that kill the runtime that prefills them.
    pub poison_share: f64,
    /// Seconds until the whole answer is due.
    pub deadline_s: f64,
    /// A further tenant that asks for this share of the fleet's capacity in the middle third of the time.
    pub flood: f64,
}

impl Default for WorkloadPlan {
    fn default() -> Self {
        Self {
            source: Source::Conversation,
            hours: 2.0,
            load: Some(0.7),
            length_scale: 0.25,
            tenants: 50,
            tenant_zipf: 1.0,
            model_zipf: 1.0,
            variations: Vec::new(),
            batch_share: 0.0,
            poison_share: 0.0,
            deadline_s: DEADLINE_S,
            flood: 0.0,
        }
    }
}

impl WorkloadPlan {
    /// The requests of one seed.
    ///
    /// # Errors
    /// What is wrong with the trace file.
    pub fn build(&self, fleet: &Fleet, seed: u64) -> Result<Workload, String> {
        let builder = Builder::new(self, fleet.models.len(), seed);
        let (workload, load) = match &self.source {
            Source::Trace(path) => (builder.dress(&read_trace(path)?)?, self.load),
            Source::AzureChat | Source::AzureCode | Source::Conversation => {
                let probe = builder.draw(1.0, PROBE_S, 0.0);
                let capacity = bounds::capacity(fleet, &probe);
                let load = self.load.unwrap_or(1.0);
                (builder.draw(load * capacity, self.hours * 3_600.0, self.flood * capacity), Some(load))
            }
        };
        Ok(match load {
            Some(load) if self.flood == 0.0 => paced(workload, fleet, load),
            Some(_) | None => workload,
        })
    }
}

/// At one request per second, enough of them to know their mean.
const PROBE_S: f64 = 4_000.0;

/// Stretches the time between arrivals so that exactly the wanted load is offered.
fn paced(workload: Workload, fleet: &Fleet, load: f64) -> Workload {
    let offered = bounds::offered_load(fleet, &workload);
    if offered > 0.0 && load > 0.0 { workload.stretched(offered / load) } else { workload }
}
