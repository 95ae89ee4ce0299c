//! The control service of a fake process: views and status, as a test wants them.

use craq_client::proto::{CallError, wire};
use futures::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};
use wire::coordinator_server::Coordinator;

use crate::process::{Boxed, Inner};

#[tonic::async_trait]
impl Coordinator for Inner {
    type RegisterStream = Boxed<wire::CoordinatorMessage>;
    type WatchViewsStream = Boxed<wire::GetViewReply>;
    type GetHistoryStream = Boxed<wire::HistoryEntry>;

    async fn register(
        &self,
        _: Request<Streaming<wire::NodeMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        Err(Status::unimplemented("no node calls here"))
    }

    async fn get_view(
        &self,
        _: Request<wire::GetViewRequest>,
    ) -> Result<Response<wire::GetViewReply>, Status> {
        let views = self.views.borrow().clone();
        Ok(Response::new(wire::GetViewReply { header: self.header(), views }))
    }

    async fn watch_views(
        &self,
        _: Request<wire::WatchViewsRequest>,
    ) -> Result<Response<Self::WatchViewsStream>, Status> {
        let header = self.header();
        let reply = move |views| Ok(wire::GetViewReply { header: header.clone(), views });
        Ok(Response::new(Box::pin(WatchStream::new(self.views.subscribe()).map(reply))))
    }

    async fn write(&self, _: Request<wire::WriteRequest>) -> Result<Response<wire::WriteReply>, Status> {
        Err(Status::unimplemented("clients write to nodes"))
    }

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        let views = self.views.borrow().clone();
        let member = |member: wire::Member| wire::MemberStatus {
            node: member.node,
            address: member.address,
            role: "middle".into(),
            in_sync: true,
            alive: true,
            replica: None,
            incarnation: 1,
        };
        let chain = |view: wire::View| wire::ChainStatus {
            chain: view.chain,
            epoch: view.epoch,
            members: view.members.into_iter().map(member).collect(),
            learners: vec![],
            reason: view.reason,
        };
        Ok(Response::new(wire::GetStatusReply {
            header: self.header(),
            chains: views.into_iter().map(chain).collect(),
            spares: vec![],
            source: if self.is_coordinator { "coordinator" } else { "node" }.into(),
        }))
    }

    async fn remove_node(
        &self,
        _: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        if !self.is_coordinator {
            return Err(Status::unimplemented("ask a coordinator"));
        }
        Ok(Response::new(wire::AdminReply { header: self.header() }))
    }

    async fn reorder(&self, _: Request<wire::ReorderRequest>) -> Result<Response<wire::AdminReply>, Status> {
        Err(CallError::invalid("not all members are named").to_status())
    }

    async fn get_leadership(
        &self,
        _: Request<wire::GetLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        Err(Status::unimplemented("ask a coordinator"))
    }

    async fn transfer_leadership(
        &self,
        _: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        Err(Status::unimplemented("ask a coordinator"))
    }

    async fn get_history(
        &self,
        _: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        Err(Status::unimplemented("ask a coordinator"))
    }
}
