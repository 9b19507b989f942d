//! The gRPC port: agents' and workers' services, health, and reflection for generic tools.

use std::time::Duration;

use anyhow::Context;
use dovetail_api::v1::inference_server::InferenceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::{Downloads, InferenceService};
use crate::grpc_listener::incoming;
use crate::tasks::Tasks;

/// What the port serves.
pub(crate) struct Services {
    pub(crate) tasks: Tasks,
    /// The model files for workers; `None` where the operator hands out none.
    pub(crate) downloads: Option<Downloads>,
    /// How many requests one connection may have under way.
    pub(crate) requests_per_connection_max: usize,
    /// What streams run on.
    pub(crate) tracker: TaskTracker,
}

/// Serves agents, and workers that fetch models, until `shutdown`.
///
/// # Errors
/// A reflection service that cannot be built, or a port that fails.
pub(crate) async fn serve(
    listener: TcpListener,
    services: Services,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<InferenceServer<InferenceService>>()
        .await;
    let service = InferenceService {
        tasks: services.tasks,
        tracker: services.tracker,
    };
    let inference =
        InferenceServer::new(service).max_decoding_message_size(dovetail_api::MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(services.requests_per_connection_max)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(reflection()?)
        .add_service(health_service)
        .add_service(inference)
        .add_optional_service(services.downloads.map(Downloads::into_service))
        .serve_with_incoming_shutdown(incoming(listener), shutdown.cancelled_owned())
        .await
        .context("the gRPC server failed")
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
    use tonic::transport::Channel;
    use tonic_reflection::pb::{v1, v1alpha};

    /// A port that serves reflection alone.
    async fn connect() -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = tonic::transport::Server::builder().add_routes(reflection().unwrap());
        tokio::spawn(router.serve_with_incoming(incoming(listener)));
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect().await.unwrap()
    }

    #[tokio::test]
    async fn clients_that_know_only_v1alpha_are_told_the_services() {
        use v1alpha::server_reflection_client::ServerReflectionClient;
        use v1alpha::server_reflection_request::MessageRequest;
        use v1alpha::server_reflection_response::MessageResponse;
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(connect().await);
        let answers = client.server_reflection_info(tokio_stream::once(request));
        let answer = answers.await.unwrap().into_inner().message().await.unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.unwrap().message_response
        else {
            panic!("no list of services");
        };
        let names: Vec<_> = list.service.into_iter().map(|found| found.name).collect();
        assert!(
            names.contains(&dovetail_api::SERVICE_NAME.to_owned()),
            "{names:?}"
        );
    }

    #[tokio::test]
    async fn clients_that_know_v1_are_told_of_both_versions() {
        use v1::server_reflection_client::ServerReflectionClient;
        use v1::server_reflection_request::MessageRequest;
        use v1::server_reflection_response::MessageResponse;
        let request = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(connect().await);
        let answers = client.server_reflection_info(tokio_stream::once(request));
        let answer = answers.await.unwrap().into_inner().message().await.unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.unwrap().message_response
        else {
            panic!("no list of services");
        };
        let names: Vec<_> = list.service.into_iter().map(|found| found.name).collect();
        for service in ["v1", "v1alpha"] {
            let name = format!("grpc.reflection.{service}.ServerReflection");
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(
            names.contains(&dovetail_api::SERVICE_NAME.to_owned()),
            "{names:?}"
        );
    }
}
