//! Every limit and time of the node's network side that is no flag, in one place, with its reason.
//!
//! What tonic would do by itself is not safe on an open port (no limit on streams, no timeouts, no keepalive), so
//! nothing is left to its defaults. How many connections there may be, and how they begin, is in `craq-listener`.

use std::time::Duration;

use craq_proto::key::MESSAGE_BYTES_MAX;

/// Longest message of a client, both ways.
pub(crate) const CLIENT_MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Longest message between nodes: about a megabyte of entries or rows, or one entry that is larger by itself.
pub(crate) const PEER_MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Entries are joined into one message up to so many bytes: enough to make the envelope cheap, too little to delay an
/// acknowledgement that waits behind it.
pub(crate) const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that may wait for a link; more than the dirty suffix can hold, so only a peer that takes nothing gets here.
pub(crate) const OUTBOX_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A link whose queue has not moved for so long is closed; its replica opens it again.
pub(crate) const OUTBOX_STALLED: Duration = Duration::from_secs(10);

/// Most keys in a page.
pub(crate) const PAGE_KEYS_MAX: usize = 1_000;
/// A page ends at so many bytes of keys and values, with one item at least.
pub(crate) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most keys in one question to the tail.
pub(crate) const QUESTION_KEYS_MAX: usize = 1_000;
/// Most bytes of keys in one question to the tail.
pub(crate) const QUESTION_BYTES_MAX: usize = 1024 * 1024;

/// Calls of one session that may be under way; above this no more begin.
pub(crate) const SESSION_CALLS_MAX: usize = 1_024;
/// Answers of one session that may wait to be sent; above this no more calls begin.
pub(crate) const SESSION_ANSWERS_MAX: usize = 1_024;
/// When the values in the answers that wait have so many bytes, no more calls begin before they are sent: a reply has at
/// most one value beyond this, and so stays below the limit of a message.
pub(crate) const SESSION_REPLY_BYTES: usize = 256 * 1024;

/// Inputs that may wait for a replica; whoever brings more waits.
pub(crate) const INPUTS_MAX: usize = 1_024;
/// Inputs that a replica takes in one turn, before what they led to is sent.
pub(crate) const TURN_INPUTS_MAX: usize = 256;

/// The longest that a call of a client takes; shorter if the client says so.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// A call is answered so much before its deadline, so that the caller gets the answer and not just the deadline …
pub(crate) const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(50);
/// … but at most this part of its time earlier.
pub(crate) const ANSWER_MARGIN_PART: u32 = 10;
/// The first wait of a call that cannot be answered yet; doubles …
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(2);
/// … up to this.
pub(crate) const RETRY_MAX: Duration = Duration::from_millis(20);

/// Connections that may wait to be accepted.
pub(crate) const LISTEN_BACKLOG: u32 = 1_024;
/// Concurrent calls on one connection. tonic's default is no limit.
pub(crate) const STREAMS_PER_CONNECTION: u32 = 256;
/// Calls on one connection that are being worked on; above the streams' limit, so that only a peer that ignores it is shed.
pub(crate) const CALLS_PER_CONNECTION: usize = 512;
/// A call begins its answer within this time, counted from its headers: a body that is sent a byte now and then ends here.
/// Handlers have shorter deadlines of their own.
pub(crate) const HANDLER_TIME_MAX: Duration = Duration::from_secs(15);
/// A silent connection is pinged this often …
pub(crate) const SERVER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and closed if nothing comes back for so long.
pub(crate) const SERVER_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of headers of one request.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client may open and reset before they are accepted (against HTTP/2 rapid reset).
pub(crate) const PENDING_RESETS_MAX: usize = 20;
/// Streams that this side may reset for a client's errors before the connection is closed.
pub(crate) const ERROR_RESETS_MAX: usize = 1_024;
/// Bytes of one stream that may be under way unread.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of one connection that may be under way unread.
pub(crate) const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A peer that does not accept a connection within this time is not there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections to peers are pinged this often, also while idle …
pub(crate) const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_millis(300);
/// … and given up if nothing comes back for so long.
pub(crate) const PEER_KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(500);
/// A peer that does not accept a link within this time is not there.
pub(crate) const LINK_OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// A link that lived shorter than this counts as one that could not be opened.
pub(crate) const LINK_LIFE_MIN: Duration = Duration::from_millis(100);
/// What is left to say on a link that is being closed may take so long.
pub(crate) const LINK_FAREWELL: Duration = Duration::from_secs(1);
/// The first wait after a peer could not be reached; doubles …
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// … up to this.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(200);
/// How long a question to the tail may take.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a question about views or states may take.
pub(crate) const INQUIRY_TIMEOUT: Duration = Duration::from_millis(300);

/// The longest wait before the next coordinator is tried.
pub(crate) const COORDINATOR_BACKOFF_MAX: Duration = Duration::from_millis(500);
/// The coordinator's answer to a registration may take so long.
pub(crate) const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Two fetches of the newest view are at least so far apart.
pub(crate) const FETCH_INTERVAL: Duration = Duration::from_millis(20);
/// A node that is asked to stop waits so long for a view without it.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Then requests in flight get so long to end.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// How often progress is logged while the store is being read at the start.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// A store's file that cannot be opened is tried again for so long.
pub(crate) const STORE_WAIT: Duration = Duration::from_secs(2);
