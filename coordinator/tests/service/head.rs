//! A head that answers writes in every way that a head can, by the key.

use craq_proto::{CallError, ErrorKind, Version, wire};
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub(crate) struct Head;

/// Serves on the listener until the test ends.
pub(crate) fn serve(listener: TcpListener) {
    let service = wire::kv_server::KvServer::new(Head);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
}

#[tonic::async_trait]
impl wire::kv_server::Kv for Head {
    type ScanStream = BoxStream<'static, Result<wire::Page, Status>>;

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        let request = request.into_inner();
        assert!(!request.handed_on, "the head may hand the write on if it leads no more");
        match request.key.as_ref() {
            b"good" => Ok(Response::new(wire::WriteReply { version: 5, seq: 9, header: request.header })),
            b"refused" => {
                let error = CallError::new(ErrorKind::ConditionFailed, "version 3 is not 4");
                Err(CallError { observed_version: Version(3), ..error }.to_status())
            }
            _ => Err(Status::unavailable("the connection broke")),
        }
    }

    async fn read(&self, _: Request<wire::ReadRequest>) -> Result<Response<wire::ReadReply>, Status> {
        Err(Status::unimplemented("only writes"))
    }

    async fn delete(&self, _: Request<wire::DeleteRequest>) -> Result<Response<wire::WriteReply>, Status> {
        Err(Status::unimplemented("only writes"))
    }

    async fn scan(&self, _: Request<wire::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        Err(Status::unimplemented("only writes"))
    }

    type SessionStream = BoxStream<'static, Result<wire::SessionReply, Status>>;

    async fn session(
        &self,
        _: Request<tonic::Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("only writes"))
    }

    async fn get_node_status(
        &self,
        _: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatus>, Status> {
        Err(Status::unimplemented("only writes"))
    }
}
