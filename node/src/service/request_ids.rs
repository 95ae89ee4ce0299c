//! Ids for writes that come without one.
//!
//! Each write in flight has a client id of its own for as long as it takes; then the next write has it, with the next
//! number and the floor at that number. So the replicas keep one outcome for each, however many writes there are. An id
//! whose outcome stayed unknown is never used again: whoever was told of it may still repeat it.

use craq_proto::{ClientId, RequestId, Seq};
use parking_lot::Mutex;
use uuid::Uuid;

/// The ids that are free.
#[derive(Default)]
pub(crate) struct RequestIds {
    // As many as writes were ever in flight at once, which is limited.
    free: Mutex<Vec<(ClientId, u64)>>,
}

impl RequestIds {
    /// An id that was never used before, for a write that is first sent now.
    pub(super) fn take(&self, born: Seq) -> RequestId {
        let free = self.free.lock().pop();
        let (client, number) = free.unwrap_or_else(|| (ClientId(Uuid::new_v4()), 1));
        RequestId { client, number, floor: number, born, retry: false }
    }

    /// The write is over, and nobody will repeat it.
    pub(super) fn give_back(&self, id: RequestId) {
        self.free.lock().push((id.client, id.number + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_given_twice_and_few_clients_are_used() {
        let ids = RequestIds::default();
        let first = ids.take(Seq(5));
        let second = ids.take(Seq(5));
        assert_ne!(first.client, second.client);
        ids.give_back(first);
        let third = ids.take(Seq(6));
        assert_eq!((third.client, third.number, third.floor), (first.client, 2, 2));
        let fourth = ids.take(Seq(6));
        assert_ne!(fourth.client, second.client, "one that was not given back is not given again");
    }
}
