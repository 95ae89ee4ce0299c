//! What a node can serve of the coordinator's service, from what it knows itself, so that clients and nodes need no
//! living coordinator to find their way. It decides nothing about chains, and says who does.

use std::{pin::Pin, sync::Arc};

use craq_proto::{CallError, View, wire, wire::coordinator_server::Coordinator};
use futures::{Stream, StreamExt, future::ready, stream};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Door, kv::write_one};
use crate::{identity::Identity, status};

/// Serves a part of `craq.v1.Coordinator`.
pub(super) struct ControlService {
    door: Door,
}

impl ControlService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    fn views(&self, header: Option<wire::Header>) -> Result<Vec<View>, CallError> {
        let chains = self.door.node()?.named_chains(header)?;
        let views = chains.into_iter().filter_map(|chain| chain.view());
        Ok(views.map(|view| View::clone(&view)).collect())
    }

    fn refuse<T>(&self, call: &str) -> Result<Response<T>, Status> {
        let coordinators = self.door.node()?.coordinators.join(", ");
        Err(Status::unimplemented(format!(
            "this is a node, which decides nothing about chains: send {call} to the coordinator ({coordinators})"
        )))
    }
}

fn view_reply(me: &Identity, views: &[View]) -> wire::GetViewReply {
    wire::GetViewReply { header: Some(me.bare_header()), views: views.iter().map(Into::into).collect() }
}

#[tonic::async_trait]
impl Coordinator for ControlService {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;

    async fn register(
        &self,
        _: Request<Streaming<wire::NodeMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        self.refuse("Register")
    }

    async fn get_view(
        &self,
        request: Request<wire::GetViewRequest>,
    ) -> Result<Response<wire::GetViewReply>, Status> {
        let views = self.views(request.into_inner().header)?;
        Ok(Response::new(view_reply(&self.door.node()?.me, &views)))
    }

    type WatchViewsStream = Pin<Box<dyn Stream<Item = Result<wire::GetViewReply, Status>> + Send>>;

    async fn watch_views(
        &self,
        request: Request<wire::WatchViewsRequest>,
    ) -> Result<Response<Self::WatchViewsStream>, Status> {
        let node = self.door.node()?;
        let chains = node.named_chains(request.into_inner().header)?;
        let views = chains.into_iter().map(|chain| WatchStream::new(chain.views()));
        let me = Arc::clone(&node.me);
        let replies = stream::select_all(views)
            .filter_map(ready)
            .map(move |view| Ok(view_reply(&me, std::slice::from_ref(&*view))))
            .take_until(node.closing.clone().cancelled_owned());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        write_one(self.door.node()?, request).await
    }

    async fn get_status(
        &self,
        request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        let views = self.views(request.into_inner().header)?;
        Ok(Response::new(status::cluster_status(self.door.node()?, &views).await))
    }

    async fn remove_node(
        &self,
        _: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        self.refuse("RemoveNode")
    }

    async fn reorder(&self, _: Request<wire::ReorderRequest>) -> Result<Response<wire::AdminReply>, Status> {
        self.refuse("Reorder")
    }

    async fn get_leadership(
        &self,
        _: Request<wire::GetLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        self.refuse("GetLeadership")
    }

    async fn transfer_leadership(
        &self,
        _: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        self.refuse("TransferLeadership")
    }

    type GetHistoryStream = Pin<Box<dyn Stream<Item = Result<wire::HistoryEntry, Status>> + Send>>;

    async fn get_history(
        &self,
        _: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        self.refuse("GetHistory")
    }
}
