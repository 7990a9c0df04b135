//! The API's TCP listener.
//!
//! Owns accepting clients, their number, the time they may take to send a request head, and TCP_NODELAY (without it each
//! token waits for the next). Refuses to hold more connections than the bound: the rest waits in the kernel's backlog. At the
//! stop, running answers may end within the drain time; what is still running then is cut.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::limits;

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
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits::API_HEADER_READ).pipeline_flush(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
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
