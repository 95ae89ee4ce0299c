//! Ranges: page by page, and on at another node when one fails.

use craq_client::{Client, Options, Range};
use futures::TryStreamExt as _;

use crate::process::{Answer, Fake, Heard, chain};

async fn keys(client: &Client, range: Range) -> Vec<String> {
    let items: Vec<_> = client.scan(range, Options::new()).try_collect().await.unwrap();
    items.into_iter().map(|item| String::from_utf8(item.key.to_vec()).unwrap()).collect()
}

fn scans(fake: &Fake) -> Vec<(String, u64)> {
    let scan = |heard| match heard {
        Heard::Scan(scan) => (String::from_utf8(scan.start.to_vec()).unwrap(), scan.limit),
        other => panic!("{other:?} is no scan"),
    };
    fake.heard().into_iter().map(scan).collect()
}

#[tokio::test]
async fn pages_become_one_range() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Pages(vec![(vec!["a", "b"], "c"), (vec!["c"], "")])]);
    let client = Client::connect([node.address.as_str()]).await.unwrap();
    assert_eq!(keys(&client, Range::all()).await, ["a", "b", "c"]);
    assert_eq!(scans(&node), [(String::new(), 0)]);
}

#[tokio::test]
async fn a_range_goes_on_at_another_node_after_the_last_page_that_arrived() {
    let (first, second) = (Fake::node(), Fake::node());
    chain(1, &[&first, &second]);
    for node in [&first, &second] {
        node.will([
            Answer::PagesThenDeath(vec![(vec!["a", "b"], "c")]),
            Answer::Pages(vec![(vec!["c", "d"], "")]),
        ]);
    }
    // Only the node that is asked first gives the first page; the other is asked for the rest.
    let client = Client::connect([first.address.as_str()]).await.unwrap();
    let pages = client.scan_pages(Range::all().limit(4), Options::new());
    let mut pages = std::pin::pin!(pages);
    let page = pages.try_next().await.unwrap().unwrap();
    assert_eq!(page.items.len(), 2);
    let (asked, other) =
        if scans(&first) == [(String::new(), 4)] { (&first, &second) } else { (&second, &first) };
    other.skip_answer();
    let page = pages.try_next().await.unwrap().unwrap();
    assert_eq!(page.items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"c", b"d"]);
    assert!(pages.try_next().await.unwrap().is_none());
    assert_eq!(scans(other), [("c".to_owned(), 2)], "from where the pages broke off, and only what is left");
    assert!(scans(asked).iter().all(|scan| scan.0.is_empty()));
}

#[tokio::test]
async fn a_limit_ends_a_range() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Pages(vec![(vec!["a", "b"], "c")])]);
    let client = Client::connect([node.address.as_str()]).await.unwrap();
    assert_eq!(keys(&client, Range::all().limit(2)).await, ["a", "b"]);
    assert!(keys(&client, Range::all().limit(0)).await.is_empty());
    assert_eq!(scans(&node), [(String::new(), 2)]);
}

#[tokio::test]
async fn a_page_out_of_order_is_refused() {
    let (sick, sound) = (Fake::node(), Fake::node());
    chain(1, &[&sick, &sound]);
    sick.will([Answer::Pages(vec![(vec!["b", "a"], "")]), Answer::Pages(vec![(vec!["a"], "a")])]);
    sound.will((0..4).map(|_| Answer::Pages(vec![(vec!["a", "b"], "")])));
    let client = Client::connect([sound.address.as_str()]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(keys(&client, Range::all()).await, ["a", "b"]);
    }
}
