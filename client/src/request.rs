//! Request ids: which number a write gets, which are still in flight, and how an id is written down for people.
//!
//! Never decides whether a request is repeated: see [`crate::retry`].

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use craq_proto::{
    CallError, ClientId, RequestId, Seq,
    planted::{self, Bug},
};
use parking_lot::Mutex;
use uuid::Uuid;

/// Longest request id that a user may choose, in characters.
pub const REQUEST_TEXT_CHARS_MAX: usize = 64;

/// A request id that can be kept and used again: repeating a write with it takes effect at most once.
///
/// Printed as `UUID:NUMBER:BORN`. What is parsed from this form counts as a repeat: a head that can no longer judge it
/// refuses it. Any other text of 1 to 64 characters without a leading UUID is an id of the user's choice; the same
/// text always makes the same id, and its first use counts as the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestToken {
    client: ClientId,
    number: u64,
    born: Seq,
    repeat: bool,
}

impl RequestToken {
    pub(crate) fn new(client: ClientId, number: u64, born: Seq) -> Self {
        Self { client, number, born, repeat: false }
    }

    /// The id that the user chose by this text.
    pub fn from_text(text: &str) -> Result<Self, BadRequestToken> {
        let count = text.chars().count();
        if count == 0 || count > REQUEST_TEXT_CHARS_MAX {
            return Err(BadRequestToken::Length(count));
        }
        let name = format!("craq:request:{text}");
        let client = ClientId(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()));
        Ok(Self::new(client, 1, Seq::ZERO))
    }

    /// The same id, for a request that may have been sent before.
    #[must_use]
    pub fn repeated(self) -> Self {
        Self { repeat: true, ..self }
    }

    /// Whether the request may have been sent before.
    #[must_use]
    pub fn is_repeat(self) -> bool {
        self.repeat
    }

    /// The same id for a request that the chain finds too old, if that is what the error says.
    pub(crate) fn reborn(self, error: &CallError) -> Option<Self> {
        error.reborn(self.born).map(|born| Self { born, ..self })
    }
}

impl fmt::Display for RequestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.client, self.number, self.born)
    }
}

/// The text is no request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequestToken {
    /// It is too short or too long.
    #[error("a request id has 1 to {REQUEST_TEXT_CHARS_MAX} characters, not {0}")]
    Length(usize),
    /// It begins as a printed id does and does not go on so.
    #[error("a printed request id is UUID:NUMBER:BORN, not {0:?}")]
    Printed(String),
}

impl FromStr for RequestToken {
    type Err = BadRequestToken;

    fn from_str(text: &str) -> Result<Self, BadRequestToken> {
        let mut parts = text.split(':');
        let Some(client) = parts.next().and_then(|part| Uuid::parse_str(part).ok()) else {
            return Self::from_text(text);
        };
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (counted, born) = (number().filter(|n| *n > 0), number());
        match (counted, born, parts.next()) {
            (Some(number), Some(born), None) => {
                Ok(Self { client: ClientId(client), number, born: Seq(born), repeat: true })
            }
            _ => Err(BadRequestToken::Printed(text.to_owned())),
        }
    }
}

/// The numbers of one client id.
#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    in_flight: BTreeSet<u64>,
}

/// One client id, as the replicas know it.
#[derive(Debug)]
struct Session {
    client: ClientId,
    numbers: Mutex<Numbers>,
}

impl Session {
    fn new(client: Uuid) -> Arc<Self> {
        Arc::new(Self { client: ClientId(client), numbers: Mutex::default() })
    }
}

/// Gives out request ids.
///
/// A number whose outcome stays unknown must not fall below the floor of later requests, or the replicas would forget
/// it before the user can repeat it. So such a number is never released, and the client goes on under a new client id.
#[derive(Debug)]
pub struct Requests {
    current: Mutex<Arc<Session>>,
}

impl Requests {
    /// Starts with this client id.
    pub fn new(client: Uuid) -> Self {
        Self { current: Mutex::new(Session::new(client)) }
    }

    /// An id for a request that is first made now; `born` is the highest sequence seen so far.
    pub fn begin(&self, born: Seq) -> Ticket {
        let session = Arc::clone(&self.current.lock());
        let number = {
            let mut numbers = session.numbers.lock();
            numbers.last += 1;
            let number = numbers.last;
            numbers.in_flight.insert(number);
            number
        };
        Ticket { token: RequestToken::new(session.client, number, born), session: Some(session) }
    }

    /// The outcome of the ticket's request stays unknown. `fresh` is a client id never used before.
    pub fn keep(&self, mut ticket: Ticket, fresh: Uuid) {
        let Some(session) = ticket.session.take() else { return };
        let mut current = self.current.lock();
        if Arc::ptr_eq(&current, &session) {
            *current = Session::new(fresh);
        }
    }
}

/// A request id in use. Dropping it says that it will never be sent again.
#[derive(Debug)]
pub struct Ticket {
    token: RequestToken,
    session: Option<Arc<Session>>,
}

impl Ticket {
    /// For an id that comes from outside.
    pub fn of(token: RequestToken) -> Self {
        Self { token, session: None }
    }

    /// The id.
    pub fn token(&self) -> RequestToken {
        self.token
    }

    /// The id as an attempt sends it: `request` is the ticket's, as its call has it by now.
    pub fn id(&self, request: RequestToken) -> RequestId {
        let RequestToken { client, number, born, repeat } = request;
        let lowest =
            self.session.as_ref().and_then(|session| session.numbers.lock().in_flight.first().copied());
        let number = if repeat && planted::is(Bug::RetryUnderNewId) { number + (1 << 32) } else { number };
        let retry = repeat && !planted::is(Bug::RetryNotFlagged);
        RequestId { client, number, floor: lowest.unwrap_or(0), born, retry }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.numbers.lock().in_flight.remove(&self.token.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Requests {
        Requests::new(Uuid::from_u128(1))
    }

    fn sent(ticket: &Ticket) -> RequestId {
        ticket.id(ticket.token())
    }

    #[test]
    fn numbers_count_up_and_the_floor_is_the_lowest_in_flight() {
        let requests = requests();
        let (first, second) = (requests.begin(Seq(0)), requests.begin(Seq(5)));
        assert_eq!((sent(&first).number, sent(&first).floor), (1, 1));
        assert_eq!(
            (second.id(second.token().repeated()).number, second.id(second.token().repeated()).floor),
            (2, 1)
        );
        assert!(second.id(second.token().repeated()).retry);
        assert_eq!(sent(&second).born, Seq(5));
        drop(first);
        assert_eq!(sent(&second).floor, 2);
        drop(second);
        assert_eq!(sent(&requests.begin(Seq(0))).floor, 3);
    }

    #[test]
    fn an_unknown_outcome_is_never_given_up_and_later_requests_have_another_client() {
        let requests = requests();
        let (unknown, sibling) = (requests.begin(Seq(0)), requests.begin(Seq(0)));
        let client = sent(&unknown).client;
        requests.keep(unknown, Uuid::from_u128(2));
        assert_eq!((sent(&sibling).client, sent(&sibling).floor), (client, 1));
        let next = sent(&requests.begin(Seq(0)));
        assert_ne!(next.client, client);
        assert_eq!((next.number, next.floor), (1, 1));
        requests.keep(sibling, Uuid::from_u128(3));
        assert_eq!(sent(&requests.begin(Seq(0))).client, next.client, "the old client is retired already");
    }

    #[test]
    fn the_printed_form_comes_back_as_a_repeat() {
        let token = RequestToken::new(ClientId(Uuid::from_u128(7)), 3, Seq(9));
        assert_eq!(token.to_string(), "00000000-0000-0000-0000-000000000007:3:9");
        assert_eq!(token.to_string().parse::<RequestToken>().unwrap(), token.repeated());
        let id = Ticket::of(token).id(token.repeated());
        assert_eq!((id.number, id.floor, id.born, id.retry), (3, 0, Seq(9), true));
    }

    #[test]
    fn free_text_always_makes_the_same_id() {
        let token = |text: &str| text.parse::<RequestToken>().unwrap();
        assert_eq!(token("order-17"), token("order-17"));
        assert_ne!(token("order-17"), token("order-18"));
        assert!(!token("order:17").is_repeat());
        assert_eq!(
            token("order-17").to_string().parse::<RequestToken>().unwrap(),
            token("order-17").repeated()
        );
    }

    #[test]
    fn bad_ids_are_refused_not_hashed() {
        let uuid = Uuid::from_u128(7);
        for bad in [
            String::new(),
            "x".repeat(65),
            uuid.to_string(),
            format!("{uuid}:0:1"),
            format!("{uuid}:1"),
            format!("{uuid}:1:2:3"),
            format!("{uuid}:1:x"),
        ] {
            assert!(bad.parse::<RequestToken>().is_err(), "{bad:?} was taken");
        }
        assert!("ä".repeat(64).parse::<RequestToken>().is_ok(), "characters are counted, not bytes");
    }
}
