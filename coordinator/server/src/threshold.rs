//! What somebody without a certificate may ask of a coordinator: to become a member, and to become one again.
//!
//! Owns the check before a word of the request is read: which calls, how many, how long they may be, and how long they may take to
//! come. Refuses everything else, and trusts nobody for having passed: members are checked again by each call.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::service::Routes;
use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};
use tower::layer::{LayerFn, layer_fn};

use crate::entrance::Caller;
use crate::limits;

/// As gRPC names them.
const OPEN: [&str; 2] = ["/mlx.cluster.v1.Cluster/Join", "/mlx.cluster.v1.Cluster/Renew"];

pub(crate) const NO_CERTIFICATE: &str = "the certificate of a node is needed: join first";

const TOO_MANY: &str = "too many calls without a certificate: connect anew";

/// Puts everything behind the threshold.
type Door = Stack<LayerFn<fn(Routes) -> Threshold<Routes>>, Identity>;

/// gRPC of a coordinator.
pub(crate) fn server() -> Server<Door> {
    Server::builder()
        .max_concurrent_streams(limits::CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(limits::SESSION_KEEP_ALIVE))
        .http2_keepalive_timeout(Some(limits::SESSION_TIMEOUT))
        .layer(layer_fn(Threshold::before))
}

#[derive(Clone)]
pub(crate) struct Threshold<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S> Threshold<S> {
    pub(crate) fn before(inner: S) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(limits::STRANGERS_CALLS)) }
    }
}

impl<S> Service<http::Request<Body>> for Threshold<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return refuse(Status::unauthenticated(NO_CERTIFICATE));
        };
        if caller.identity.is_some() {
            return Box::pin(self.inner.call(request));
        }
        // Refusals count: they too are kept until somebody reads them.
        if caller.asked.fetch_add(1, Ordering::Relaxed) >= limits::STRANGERS_CALLS_EACH {
            caller.cut.cancel();
            return refuse(Status::unavailable(TOO_MANY));
        }
        if !OPEN.contains(&request.uri().path()) {
            return refuse(Status::unauthenticated(NO_CERTIFICATE));
        }
        // The one that was asked whether it is ready, rather than its copy.
        let copy = self.inner.clone();
        let (mut inner, places) = (std::mem::replace(&mut self.inner, copy), Arc::clone(&self.places));
        Box::pin(async move {
            let request = match hear_out(request).await {
                Ok(request) => request,
                Err(refused) => return Ok(refused.into_http()),
            };
            // It is never closed.
            let _place = places.acquire_owned().await;
            inner.call(request).await
        })
    }
}

fn refuse(status: Status) -> BoxFuture<http::Response<Body>, Infallible> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// The same request, all of which is here. A stranger who is slow to speak keeps no place from another.
async fn hear_out(request: http::Request<Body>) -> Result<http::Request<Body>, Status> {
    let (head, body) = request.into_parts();
    let words = Limited::new(body, limits::STRANGERS_CALL_BYTES).collect();
    let words = timeout(limits::STRANGERS_SPEAK, words).await;
    let words = words.map_err(|_| Status::deadline_exceeded("the request did not come in time"))?;
    let words = words.map_err(|_| Status::invalid_argument("the request is too long, or was broken off"))?;
    Ok(http::Request::from_parts(head, Body::new(Full::new(words.to_bytes()))))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use proto::identity::{self, Role};
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    /// Reads what it is asked, if it ever is, and counts the bytes that it read to the end.
    #[derive(Clone, Default)]
    struct Inner(Arc<AtomicUsize>);

    impl Service<http::Request<Body>> for Inner {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<http::Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let read = self.0.clone();
            Box::pin(async move {
                if let Ok(body) = request.into_body().collect().await {
                    read.fetch_add(body.to_bytes().len(), Ordering::Relaxed);
                }
                Ok(http::Response::new(Body::empty()))
            })
        }
    }

    fn caller(role: Option<Role>) -> Caller {
        Caller::new(role.map(|role| identity::Identity { role, node: 1 }), None)
    }

    fn saying(path: &str, caller: Caller, body: Body) -> http::Request<Body> {
        let request = http::Request::builder().uri(format!("https://coordinator{path}"));
        request.extension(caller).body(body).expect("a request")
    }

    fn asking(path: &str, role: Option<Role>, bytes: usize) -> http::Request<Body> {
        saying(path, caller(role), Body::new(Full::new(Bytes::from(vec![0; bytes]))))
    }

    /// Of somebody who comes in anew, and says nothing after the head.
    fn silent() -> http::Request<Body> {
        let never = futures_util::stream::pending::<Result<Bytes, Status>>();
        saying(OPEN[0], caller(None), Body::new(axum::body::Body::from_stream(never)))
    }

    fn code(response: &http::Response<Body>) -> Option<Code> {
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    /// What a call is told, and how much of it was read.
    async fn told(request: http::Request<Body>) -> (Option<Code>, usize) {
        let inner = Inner::default();
        let response = Threshold::before(inner.clone()).call(request).await.expect("infallible");
        (code(&response), inner.0.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_stranger_may_join_and_renew_in_few_words_and_is_not_heard_out_otherwise() {
        let most = limits::STRANGERS_CALL_BYTES;
        for path in OPEN {
            assert_eq!(told(asking(path, None, most)).await, (None, most));
            let too_long = Some(Code::InvalidArgument);
            assert_eq!(told(asking(path, None, most + 1)).await, (too_long, 0));
        }
        for path in ["/mlx.cluster.v1.Cluster/Look", "/mlx.raft.v1.Replica/Append", "/"] {
            assert_eq!(told(asking(path, None, 1)).await, (Some(Code::Unauthenticated), 0));
        }
    }

    #[tokio::test]
    async fn a_member_is_heard_whatever_it_asks() {
        let long = limits::STRANGERS_CALL_BYTES + 1;
        for role in [Role::Agent, Role::Coordinator] {
            for path in [OPEN[0], "/mlx.cluster.v1.Cluster/Look"] {
                assert_eq!(told(asking(path, Some(role), long)).await, (None, long));
            }
        }
    }

    #[tokio::test]
    async fn strangers_wait_for_one_another_and_no_member_waits_for_them() {
        let mut threshold = Threshold::before(Inner::default());
        let places = Arc::clone(&threshold.places);
        let all = places.acquire_many_owned(limits::STRANGERS_CALLS as u32).await.expect("open");
        let mut stranger = threshold.call(asking(OPEN[0], None, 1));
        assert!(futures_util::poll!(&mut stranger).is_pending());
        threshold.call(asking(OPEN[0], Some(Role::Agent), 1)).await.expect("infallible");
        drop(all);
        stranger.await.expect("infallible");
    }

    #[tokio::test]
    async fn who_asks_again_and_again_waits_no_more_and_is_cut() {
        let mut threshold = Threshold::before(Inner::default());
        let places = Arc::clone(&threshold.places);
        let all = places.acquire_many_owned(limits::STRANGERS_CALLS as u32).await.expect("open");
        let stranger = caller(None);
        let mut ask = |path| threshold.call(saying(path, stranger.clone(), Body::empty()));
        let refused = ask("/").await.expect("infallible");
        assert_eq!(code(&refused), Some(Code::Unauthenticated));
        let mut waiting: Vec<_> = (1..limits::STRANGERS_CALLS_EACH).map(|_| ask(OPEN[0])).collect();
        for call in &mut waiting {
            assert!(futures_util::poll!(call).is_pending());
        }
        assert!(!stranger.cut.is_cancelled());
        let beyond = ask(OPEN[0]).now_or_never().expect("answered at once").expect("infallible");
        assert_eq!(code(&beyond), Some(Code::Unavailable));
        assert!(stranger.cut.is_cancelled());
        drop(all);
        for call in waiting {
            assert_eq!(code(&call.await.expect("infallible")), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_who_do_not_speak_on_keep_no_place_from_another() {
        let mut threshold = Threshold::before(Inner::default());
        let began = Instant::now();
        let mut silent: Vec<_> = (0..limits::STRANGERS).map(|_| threshold.call(silent())).collect();
        for call in &mut silent {
            assert!(futures_util::poll!(call).is_pending());
        }
        let heard = timeout(limits::STRANGERS_STAY, threshold.call(asking(OPEN[0], None, 1))).await;
        heard.expect("in time").expect("infallible");
        assert_eq!(began.elapsed(), Duration::ZERO);
        for call in silent {
            assert_eq!(code(&call.await.expect("infallible")), Some(Code::DeadlineExceeded));
        }
        assert_eq!(began.elapsed(), limits::STRANGERS_SPEAK);
    }
}
