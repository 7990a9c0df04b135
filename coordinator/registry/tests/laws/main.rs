//! What holds for every history of commands, tried on random ones: laws, where the scenarios are examples.

#[cfg(test)]
mod generator;
#[cfg(test)]
mod replicas;
mod rotations;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod reservations;
#[cfg(test)]
mod breakers;
#[cfg(test)]
mod blame;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod names;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod oracle_joining;
#[cfg(test)]
mod oracle_models;
#[cfg(test)]
mod oracle_health;
#[cfg(test)]
mod oracle_voters;
#[cfg(test)]
mod oracle_keys;
#[cfg(test)]
mod oracle_jobs;
#[cfg(test)]
mod oracle_rotations;
mod oracle_usage;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod voters;
#[cfg(test)]
mod key_generator;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod job_generator;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod batch_generator;
#[cfg(test)]
mod oracle_batches;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod response_generator;
#[cfg(test)]
mod oracle_responses;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod audit;
