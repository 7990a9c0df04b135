//! How many commands a second one replica commits in a folder of the disk at hand, for growing numbers of writers.
//!
//! `cargo run -p consensus --example commit_rate -- FOLDER [SECONDS]`; the folder must not exist. The numbers are this
//! disk's: divide the rate of one writer by that of a plain flush to see what the log itself costs.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use consensus::{Consensus, Options, Start};
use registry::{ClusterId, Command, Role, TokenId};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf = arguments.next().ok_or("name a folder that does not exist")?.into();
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    if folder.exists() {
        return Err("the folder exists; name one that does not".into());
    }
    tokio::runtime::Runtime::new()?.block_on(measure(folder, seconds))
}

async fn measure(folder: PathBuf, seconds: u64) -> Result<(), Box<dyn Error>> {
    let replica = Consensus::open(&folder, Options::default(), Start::Found).await?;
    let found = Command::FoundCluster {
        cluster: ClusterId("rate".to_owned()),
        ca_certificate_pem: "none".to_owned(),
        ca_key_pem: "none".to_owned(),
        at_unix_ms: 0,
    };
    replica.propose(found).await?;
    let mut out = std::io::stdout();
    for writers in [1, 16, 64, 256] {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let tasks: Vec<_> =
            (0..writers).map(|id| tokio::spawn(write(replica.clone(), id, Arc::clone(&stop)))).collect();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.store(true, Ordering::Relaxed);
        let mut commits = 0;
        for task in tasks {
            commits += task.await??;
        }
        let rate = commits as f64 / begin.elapsed().as_secs_f64();
        writeln!(out, "{writers:>4} writers: {rate:>8.0} commits/s")?;
    }
    replica.shutdown().await?;
    Ok(())
}

/// Proposes one token after another, each idempotent, until told to stop.
async fn write(replica: Consensus, id: usize, stop: Arc<AtomicBool>) -> Result<u64, consensus::ProposeError> {
    let mut commits = 0;
    while !stop.load(Ordering::Relaxed) {
        let token = Command::IssueJoinToken {
            id: TokenId(format!("token-{id}")),
            secret_hash: [0; 32],
            role: Role::Agent,
            expires_at_unix_ms: 1,
            uses: None,
            name: None,
        };
        replica.propose(token).await?;
        commits += 1;
    }
    Ok(commits)
}
