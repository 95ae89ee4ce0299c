//! Before and after: the keys are written, counted and removed.

use std::time::Duration;

use anyhow::Context as _;
use craq_client::{Client, Error, Options, Range};
use futures::{StreamExt as _, TryStreamExt as _, pin_mut, stream};
use rand::{SeedableRng as _, rngs::SmallRng};

use super::{
    keys::Keys,
    plan::{Plan, Workload},
    progress::Progress,
    stop::Stop,
};

/// Writes and deletions under way at once.
const UNDER_WAY: usize = 128;
/// How often a key is tried again that an overloaded node refused.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Writes every key once; counters begin at zero. False: it was ended early.
pub(super) async fn load(plan: &Plan, client: &Client, stop: &Stop) -> anyhow::Result<bool> {
    let noise = plan.keys.noise(&mut SmallRng::seed_from_u64(plan.seed));
    let progress = Progress::new("loading", plan.keys.count);
    let written = stream::iter(0..plan.keys.count)
        .map(|number| {
            let value = match plan.workload {
                Workload::Cas => plan.keys.counted(number, 0, &noise),
                _ => plan.keys.value(number, &noise),
            };
            let name = plan.keys.name(number);
            let progress = &progress;
            async move {
                let done = retried(|| async { client.write(name.clone(), value.clone()).await.map(|_| ()) });
                done.await.with_context(|| format!("cannot load the key {name}"))?;
                progress.step(1);
                anyhow::Ok(())
            }
        })
        .buffer_unordered(UNDER_WAY)
        .try_for_each(|()| async { Ok(()) });
    let is_whole = tokio::select! {
        written = Box::pin(written) => {
            written?;
            true
        }
        () = stop.requested() => false,
    };
    progress.finish();
    Ok(is_whole)
}

/// Repeats what an overloaded node refuses.
async fn retried<F: Future<Output = Result<(), Error>>>(call: impl Fn() -> F) -> Result<(), Error> {
    let mut attempt = 0;
    loop {
        match call().await {
            Err(Error::Refused { .. }) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
        attempt += 1;
    }
}

/// Deletes every key; says on stderr if some could not be.
pub(super) async fn clean_up(keys: &Keys, client: &Client) {
    let progress = Progress::new("cleaning up", keys.count);
    let left = stream::iter(0..keys.count)
        .map(|number| {
            let name = keys.name(number);
            let progress = &progress;
            async move {
                let done = retried(|| async { client.delete(name.clone()).await.map(|_| ()) }).await;
                progress.step(1);
                !matches!(done, Ok(()) | Err(Error::NotFound))
            }
        })
        .buffer_unordered(UNDER_WAY)
        .filter(|is_left| std::future::ready(*is_left))
        .count();
    let left = Box::pin(left).await;
    progress.finish();
    if left > 0 {
        eprintln!("{left} keys under {} could not be deleted", keys.prefix);
    }
}

/// The sum of all counters, modulo 2^64: values that another load has left there count from anywhere.
pub(super) async fn sum(keys: &Keys, client: &Client) -> anyhow::Result<u64> {
    let range = Range::between(keys.name(0), keys.name(keys.count));
    let items = client.scan(range, Options::new());
    pin_mut!(items);
    let mut sum = 0_u64;
    while let Some(item) = items.try_next().await.context("cannot add up the counters")? {
        sum = sum.wrapping_add(Keys::counter(&item.value).unwrap_or_default());
    }
    Ok(sum)
}
