//! The port of agents and workers: gRPC services, health, reflection for generic tools, and beside them, over HTTP/1.1
//! and HTTP/2 on the same listener, the HTTP API. All of it over TLS, if the operator has a certificate.

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::Response;
use dovetail_api::v1::inference_server::InferenceServer;
use dovetail_sv2::PlaceLimits;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Downloads, InferenceService, PayoutsService, RewardsService};
use crate::agents::openai::unknown_path;
use crate::agents::unread_body::answer_after_body;
use crate::grpc_listener::{Renewal, limited};
use crate::tasks::Tasks;

/// A connection is asked for a sign of life this often ..
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// .. and closed without one after this.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// The headers of one request: some hundred bytes, with room for a proxy's own.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// What the port serves.
pub(crate) struct Services {
    pub(crate) tasks: Tasks,
    /// The model files for workers; `None` where the operator hands out none.
    pub(crate) downloads: Option<Downloads>,
    /// Blocks and slices; empty where the pool divides none.
    pub(crate) rewards: RewardsService,
    /// Where accounts are paid.
    pub(crate) payouts: PayoutsService,
    /// The HTTP API.
    pub(crate) http: Router,
    /// How many requests one connection may have under way.
    pub(crate) requests_per_connection_max: usize,
    /// Who may hold how many connections.
    pub(crate) places: PlaceLimits,
    /// What streams run on.
    pub(crate) tracker: TaskTracker,
}

/// Serves agents, workers that fetch models, and miners who check their part, until `shutdown`: with a certificate over TLS, and
/// over nothing else.
///
/// # Errors
/// A reflection service that cannot be built, or a port that fails.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Renewal>,
    services: Services,
    readiness: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    // Before anybody can ask: services are unknown until they are named.
    set_health(&health, ServingStatus::NotServing).await;
    let service = InferenceService {
        tasks: services.tasks,
        tracker: services.tracker,
        shutdown: shutdown.clone(),
    };
    let inference =
        InferenceServer::new(service).max_decoding_message_size(dovetail_api::MESSAGE_BYTES_MAX);
    let stop = shutdown.clone();
    let shown = tls.as_ref().map(Renewal::shown);
    let connections = limited(listener, services.places, shown, shutdown.clone());
    let serving = tonic::transport::Server::builder()
        .accept_http1(true)
        .concurrency_limit_per_connection(services.requests_per_connection_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIME_MAX))
        .http2_max_header_list_size(Some(HEADER_BYTES_MAX))
        .add_routes(merged(reflection()?, services.http))
        .add_service(health_service)
        .add_service(inference)
        .add_service(services.rewards.into_service())
        .add_service(services.payouts.into_service())
        .add_optional_service(services.downloads.map(Downloads::into_service))
        .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned());
    let renewal = async {
        if let Some(renewal) = tls {
            renewal.run(&stop).await;
        }
    };
    let (served, (), ()) = tokio::join!(serving, report_ready(&health, readiness, &stop), renewal);
    served.context("the gRPC server failed")
}

/// The gRPC services with the HTTP API beside them. What neither has gets the answer of the protocol that it was asked in.
fn merged(mut routes: Routes, http: Router) -> Routes {
    let router = std::mem::take(routes.axum_router_mut());
    let all = router.merge(http).fallback(unknown);
    *routes.axum_router_mut() = all.layer(from_fn(answer_after_body));
    routes
}

/// The answer to a call or a path that is not there.
async fn unknown(request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE);
    match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        true => Status::unimplemented("").into_http(),
        false => unknown_path(),
    }
}

/// Says `SERVING` while the pool is ready, and `NOT_SERVING` before that, and while the template source gives no work.
async fn report_ready(
    health: &HealthReporter,
    mut readiness: watch::Receiver<bool>,
    shutdown: &CancellationToken,
) {
    // What was said before this began. Whoever watches is told changes only.
    let mut said = false;
    loop {
        let is_ready = *readiness.borrow_and_update();
        let status = match is_ready {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        if is_ready != said {
            set_health(health, status).await;
            said = is_ready;
        }
        let changed = tokio::select! {
            () = shutdown.cancelled() => false,
            changed = readiness.changed() => changed.is_ok(),
        };
        if !changed {
            return set_health(health, ServingStatus::NotServing).await;
        }
    }
}

/// The health of the agents' service, and of the whole process, which has no name.
async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in [dovetail_api::SERVICE_NAME, ""] {
        health.set_service_status(service, status).await;
    }
}

/// Server reflection in both of its versions: some clients, Python's among them, know `v1alpha` alone.
fn reflection() -> anyhow::Result<Routes> {
    use tonic_reflection::{pb, server::Builder};
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(dovetail_api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET)
            .include_reflection_service(false)
    };
    let v1 = described().build_v1();
    let v1alpha = described().build_v1alpha();
    Ok(Routes::default()
        .add_service(v1.context("cannot build the reflection service v1")?)
        .add_service(v1alpha.context("cannot build the reflection service v1alpha")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc_listener::incoming;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::transport::Channel;
    use tonic::transport::server::Router;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Said;
    use tonic_health::pb::health_client::HealthClient;
    use tower::ServiceExt;

    /// A client of a port that serves this.
    async fn client_of(router: Router) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(router.serve_with_incoming(incoming(listener)));
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// The services that a port with reflection alone lists, asked in one version of reflection: both have the same
    /// messages, in types of their own.
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as version;
            use version::server_reflection_client::ServerReflectionClient;
            use version::server_reflection_request::MessageRequest;
            use version::server_reflection_response::MessageResponse;
            let router = tonic::transport::Server::builder().add_routes(reflection().unwrap());
            let mut client = ServerReflectionClient::new(client_of(router).await);
            let request = version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let answers = client.server_reflection_info(tokio_stream::once(request));
            let answer = answers.await.unwrap().into_inner().message().await.unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) =
                answer.unwrap().message_response
            else {
                panic!("no list of services");
            };
            let names = list.service.into_iter().map(|found| found.name);
            names.collect::<Vec<String>>()
        }};
    }

    #[tokio::test]
    async fn a_pool_says_whether_it_is_ready_to_whoever_watches_its_health() {
        let (health, health_service) = tonic_health::server::health_reporter();
        set_health(&health, ServingStatus::NotServing).await;
        let router = tonic::transport::Server::builder().add_service(health_service);
        let mut client = HealthClient::new(client_of(router).await);
        let (is_ready, readiness) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let asked = async {
            for service in ["", dovetail_api::SERVICE_NAME] {
                let service = service.to_owned();
                let request = HealthCheckRequest { service };
                let mut told = client.watch(request).await.unwrap().into_inner();
                let mut next = async || told.message().await.unwrap().unwrap().status();
                assert_eq!(next().await, Said::NotServing);
                for (ready, said) in [(true, Said::Serving), (false, Said::NotServing)] {
                    is_ready.send_replace(ready);
                    assert_eq!(next().await, said);
                }
            }
        };
        tokio::select! {
            () = asked => {}
            () = report_ready(&health, readiness, &shutdown) => unreachable!(),
        }
    }

    #[tokio::test]
    async fn one_port_has_grpc_and_http_and_answers_in_the_protocol_that_it_was_asked_in() {
        let http = axum::Router::new().route("/healthz", axum::routing::get(async || "ok"));
        let (_, health) = tonic_health::server::health_reporter();
        let router = tonic::transport::Server::builder()
            .accept_http1(true)
            .add_routes(merged(reflection().unwrap(), http))
            .add_service(health);
        let channel = client_of(router).await;
        // Over HTTP/2, on one connection.
        let mut client = HealthClient::new(channel.clone());
        client.check(HealthCheckRequest::default()).await.unwrap();
        let get = async |path: &str, kind: &str| {
            let request = axum::http::Request::get(format!("http://pool{path}"))
                .header(CONTENT_TYPE, kind)
                .body(tonic::body::Body::empty())
                .unwrap();
            channel.clone().oneshot(request).await.unwrap()
        };
        assert_eq!(get("/healthz", "").await.status(), 200);
        let unknown = get("/v1/embeddings", "").await;
        assert_eq!(unknown.status(), 404);
        assert_eq!(unknown.headers()[CONTENT_TYPE], "application/json");
        let unknown = get("/some.Service/Call", "application/grpc").await;
        assert_eq!(unknown.headers()["grpc-status"], "12");
    }

    #[tokio::test]
    async fn a_client_that_still_sends_is_answered_when_it_has_sent_and_may_ask_again() {
        let router = tonic::transport::Server::builder()
            .accept_http1(true)
            .add_routes(merged(Routes::default(), axum::Router::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(router.serve_with_incoming(incoming(listener)));
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = vec![b'x'; 8 << 20];
        for _ in 0..2 {
            let length = body.len();
            let head =
                format!("POST /none HTTP/1.1\r\nhost: pool\r\ncontent-length: {length}\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            // An answer that does not wait has come by then, and the connection is closed.
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.write_all(&body).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}}") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
            }
            assert!(answer.starts_with(b"HTTP/1.1 404 "));
        }
    }

    #[tokio::test]
    async fn clients_are_told_the_services_in_either_version_of_reflection() {
        let (v1, v1alpha) = (services!(v1), services!(v1alpha));
        for names in [v1, v1alpha] {
            let ours = dovetail_api::SERVICE_NAME.to_owned();
            for service in ["dovetail.rewards.v1.Rewards", "dovetail.payouts.v1.Payouts"] {
                assert!(names.contains(&service.to_owned()), "{names:?}");
            }
            let versions = ["v1", "v1alpha"]
                .map(|version| format!("grpc.reflection.{version}.ServerReflection"));
            for name in [&[ours], &versions[..]].concat() {
                assert!(names.contains(&name), "{names:?}");
            }
        }
    }
}
