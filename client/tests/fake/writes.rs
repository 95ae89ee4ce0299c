//! Where writes go, how they are repeated, and what is said of their outcome.

use std::time::{Duration, Instant};

use craq_client::{
    Client, Condition, Error, Options,
    proto::{CallError, ErrorKind, Seq, Version, View, convert::uuid_bytes, entry::checksum},
};
use tonic::Status;

use crate::process::{Answer, CLUSTER, Fake, Heard, chain, error, not_head};

const SHORT: Duration = Duration::from_millis(400);

fn short() -> Options {
    Options::new().timeout(SHORT)
}

async fn client(start: &Fake) -> Client {
    Client::connect([start.address.as_str()]).await.unwrap()
}

#[tokio::test]
async fn a_write_goes_straight_to_the_head_with_all_that_a_request_carries() {
    let (head, tail) = (Fake::node(), Fake::node());
    chain(7, &[&head, &tail]);
    head.will([Answer::Written(3)]).commits(41);
    let client = client(&tail).await;
    let outcome =
        client.write_with("k", "v", &short().condition(Condition::Version(Version(2)))).await.unwrap();
    assert_eq!((outcome.version, outcome.seq, outcome.attempts), (Version(3), Seq(42), 1));
    assert!(tail.heard().is_empty());

    let heard = head.heard();
    let [Heard::Write(request, deadline)] = &heard[..] else { panic!("{heard:?}") };
    let header = request.header.clone().unwrap();
    assert_eq!((header.cluster_id, header.chain.as_str(), header.epoch), (uuid_bytes(CLUSTER), "default", 7));
    assert_eq!(header.sender.len(), 16);
    assert_eq!(request.checksum, Some(checksum(b"k", b"v")));
    assert_eq!(request.if_version, Some(2));
    assert!(!request.handed_on);
    let id = request.request_id.clone().unwrap();
    assert_eq!((id.client, id.number, id.floor, id.born, id.retry), (header.sender, 1, 1, 0, false));
    let deadline = deadline.unwrap();
    assert!(deadline <= SHORT && deadline > SHORT / 2, "the deadline travels: {deadline:?}");
}

#[tokio::test]
async fn a_later_request_is_born_after_what_was_seen() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.commits(41);
    node.will([Answer::Found("v"), Answer::Written(1)]);
    let client = client(&node).await;
    client.read("k").await.unwrap();
    node.heard();
    client.write("k", "v").await.unwrap();
    assert_eq!(node.heard_write().request_id.unwrap().born, 41);
}

#[tokio::test]
async fn not_head_with_a_hint_is_followed() {
    let (old, new) = (Fake::node(), Fake::node());
    chain(1, &[&old]);
    old.will([not_head(&new)]);
    new.will([Answer::Written(1)]);
    let outcome = client(&old).await.write("k", "v").await.unwrap();
    assert_eq!(outcome.attempts, 2);
    let (first, second) = (old.heard_write(), new.heard_write());
    assert_eq!(first.request_id, second.request_id, "nothing was uncertain, so it is no repeat");
}

#[tokio::test]
async fn a_newer_view_in_an_error_is_followed() {
    let (old, new) = (Fake::node(), Fake::node());
    chain(1, &[&old]);
    let newer = View::try_from(chain(2, &[&new])).unwrap();
    old.will([Answer::Error(CallError::new(ErrorKind::WrongEpoch, "old").with_view(Some(newer)))]);
    new.will([Answer::Written(1)]);
    client(&old).await.write("k", "v").await.unwrap();
    assert_eq!(new.heard_write().header.unwrap().epoch, 2);
}

#[tokio::test]
async fn after_a_broken_connection_the_same_request_is_repeated_as_a_repeat() {
    let (head, other) = (Fake::node(), Fake::node());
    chain(1, &[&head, &other]);
    head.will([Answer::Death]);
    other.will([Answer::Written(1)]);
    let outcome = client(&other).await.write("k", "v").await.unwrap();
    assert!(outcome.attempts >= 2);
    let (first, second) = (head.heard_write().request_id.unwrap(), other.heard_write().request_id.unwrap());
    assert!(!first.retry && second.retry);
    assert_eq!((&first.client, first.number, first.born), (&second.client, second.number, second.born));
}

#[tokio::test]
async fn a_request_too_old_to_be_judged_is_born_where_the_chain_says() {
    let node = Fake::node();
    chain(1, &[&node]);
    let too_old = CallError { born: Seq(41), ..CallError::new(ErrorKind::Forgotten, "too old") };
    node.will([Answer::Error(too_old), Answer::Written(1), Answer::Written(1)]);
    let client = client(&node).await;
    let outcome = client.write("k", "v").await.unwrap();
    let heard = node.heard();
    let [Heard::Write(first, _), Heard::Write(second, _)] = &heard[..] else { panic!("heard {heard:?}") };
    let (first, second) = (first.request_id.clone().unwrap(), second.request_id.clone().unwrap());
    assert_eq!((&first.client, first.number), (&second.client, second.number));
    assert_eq!((first.born, second.born, second.retry), (0, 41, false));
    assert!(outcome.request.to_string().ends_with(":41") && outcome.request.is_repeat());
    client.write("k", "v").await.unwrap();
    assert_eq!(node.heard_write().request_id.unwrap().born, 41, "what a failure told is forgotten");
}

#[tokio::test]
async fn a_write_at_a_silent_head_follows_the_head_when_it_moves() {
    let (old, new) = (Fake::node(), Fake::node());
    chain(1, &[&old, &new]);
    old.will([Answer::Silence]);
    new.will([Answer::Written(1)]);
    let client = client(&new).await;
    let (outcome, ()) = tokio::join!(client.write("k", "v"), async {
        old.asked(1).await;
        chain(2, &[&new]);
    });
    assert_eq!(outcome.unwrap().attempts, 2);
    assert!(new.heard_write().request_id.unwrap().retry);
}

#[tokio::test]
async fn a_connection_that_broke_after_sending_leaves_the_outcome_unknown() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Death]);
    let end = client(&node).await.write_with("k", "v", &short()).await.unwrap_err();
    let Error::OutcomeUnknown { request, .. } = end else { panic!("{end:?} claims to know the outcome") };
    assert!(!end.is_certain() && end.is_retryable());
    let first = node.heard_write().request_id.unwrap();
    assert!(request.to_string().ends_with(&format!(":{}:{}", first.number, first.born)));

    // Repeated elsewhere, under the id of the error.
    let other = Fake::node();
    chain(1, &[&other]);
    other.will([Answer::Written(1)]);
    client(&other).await.write_with("k", "v", &short().request(request)).await.unwrap();
    let second = other.heard_write().request_id.unwrap();
    assert_eq!((second.client, second.number, second.retry), (first.client, first.number, true));
}

#[tokio::test]
async fn a_write_after_an_unknown_one_does_not_give_that_one_up() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Silence, Answer::Written(1)]);
    let client = client(&node).await;
    client.write_with("k", "v", &short()).await.unwrap_err();
    let first = node.heard_write().request_id.unwrap();
    client.write("k", "v").await.unwrap();
    let second = node.heard_write().request_id.unwrap();
    assert!(
        second.client != first.client || second.floor <= first.number,
        "{first:?} is given up by {second:?}"
    );
}

#[tokio::test]
async fn what_was_never_sent_is_certainly_not_applied() {
    let node = Fake::node();
    chain(1, &[&node]);
    let client = client(&node).await;
    node.dies();
    let end = client.write_with("k", "v", &short()).await.unwrap_err();
    // The first attempt may have used the dying connection; only then is the outcome not certain.
    match &end {
        Error::Unreachable { .. } => assert!(node.heard().is_empty()),
        Error::OutcomeUnknown { .. } => {
            let again = client.write_with("k", "v", &short()).await.unwrap_err();
            assert!(matches!(again, Error::Unreachable { .. }), "{again:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_chain_that_says_unavailable_until_the_end_has_certainly_not_applied() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will((0..1000).map(|_| error(ErrorKind::Unavailable)));
    let end = client(&node).await.write_with("k", "v", &short()).await.unwrap_err();
    assert!(matches!(end, Error::Unavailable { .. }), "{end:?}");
    let heard = node.heard();
    assert!(heard.len() > 3, "it was tried again: {}", heard.len());
    let repeats = heard.iter().filter(|heard| match heard {
        Heard::Write(request, _) => request.request_id.as_ref().unwrap().retry,
        _ => false,
    });
    assert_eq!(repeats.count(), 0, "nothing was uncertain");
}

#[tokio::test]
async fn an_error_without_craqs_own_words_proves_nothing() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will((0..1000).map(|_| Answer::Foreign(Status::unavailable("a proxy in between"))));
    let end = client(&node).await.write_with("k", "v", &short()).await.unwrap_err();
    assert!(matches!(end, Error::OutcomeUnknown { .. }), "{end:?}");
}

#[tokio::test]
async fn a_false_condition_is_certain_at_first_and_not_after_an_uncertain_attempt() {
    let node = Fake::node();
    chain(1, &[&node]);
    let failed = || {
        let mut error = CallError::new(ErrorKind::ConditionFailed, "no");
        error.observed_version = Version(9);
        Answer::Error(error)
    };
    let client = client(&node).await;
    node.will([failed()]);
    let end = client.write_if("k", "v", Condition::Absent).await.unwrap_err();
    assert_eq!(end, Error::ConditionFailed { observed: Version(9) });
    node.will([error(ErrorKind::OutcomeUnknown), failed()]);
    let end = client.write_if("k", "v", Condition::Absent).await.unwrap_err();
    assert!(matches!(end, Error::OutcomeUnknown { .. }), "{end:?}");
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let node = Fake::node();
    chain(1, &[&node]);
    let client = client(&node).await;
    node.will([error(ErrorKind::ResourceExhausted), error(ErrorKind::NotFound)]);
    assert!(matches!(client.write("k", "v").await, Err(Error::Refused { .. })));
    assert_eq!(client.delete("k").await, Err(Error::NotFound));
    let heard = node.heard();
    let [Heard::Write(..), Heard::Delete(deletion)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((deletion.if_version, deletion.request_id.as_ref().unwrap().number), (None, 2));
    let too_large = client.write("k", vec![0; 3 * 1024 * 1024 + 1]).await;
    assert!(matches!(too_large, Err(Error::Refused { .. })), "{too_large:?}");
    assert!(matches!(client.write("", "v").await, Err(Error::Invalid { .. })));
    assert!(node.heard().is_empty(), "what can't be taken is not sent");
}

#[tokio::test]
async fn a_call_ends_at_its_timeout() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Silence]);
    let client = client(&node).await;
    let start = Instant::now();
    let end = client.write_with("k", "v", &short()).await.unwrap_err();
    let took = start.elapsed();
    assert!(matches!(end, Error::OutcomeUnknown { .. }), "{end:?}");
    assert!(took >= SHORT - Duration::from_millis(120) && took < SHORT + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_write_to_a_fixed_node_goes_nowhere_else() {
    let (head, tail) = (Fake::node(), Fake::node());
    chain(1, &[&head, &tail]);
    tail.will([Answer::Written(1)]);
    let options = short().node(tail.address.as_str());
    client(&head).await.write_with("k", "v", &options).await.unwrap();
    assert!(head.heard().is_empty());
    assert_eq!(tail.heard_write().header.unwrap().epoch, 0, "served whatever its epoch is");
}
