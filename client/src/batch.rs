//! Reading many keys at once: whole messages of questions to one replica each; what is not answered then is read key by
//! key, as any read.

use bytes::Bytes;
use craq_proto::{Epoch, Key, wire::session_answer::Answer};
use futures::future::try_join_all;
use tokio::time::Instant;

use crate::{
    Client, Error, Options, ReadOutcome,
    call::{answer, reply, run, target, timeout_ms},
    failure::Failure,
    kv::{READ_ATTEMPT_TIMEOUT, ReadCall, outcome, question, read_epoch},
    retry::Retries,
    shared::Shared,
};

/// So many keys are asked of one replica at once; further ones of the next.
const KEYS_PER_REPLICA: usize = 256;

impl Client {
    /// Reads many keys, with far less work for each than one call for each has. What comes back is in the order of the keys.
    ///
    /// Each key is read for itself, somewhen between call and return: together they are no snapshot (a page of
    /// [`Client::scan`] is one). If one key cannot be read, that is the error of the whole. Of the options,
    /// `consistency`, `timeout`, `node` and `at_least` count.
    pub async fn read_many<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: &Options,
    ) -> Result<Vec<ReadOutcome>, Error> {
        let until = self.begin(options)?;
        let keys = keys.into_iter().map(Shared::key).collect::<Result<Vec<Key>, Error>>()?;
        let parts = keys.chunks(KEYS_PER_REPLICA).map(|keys| read_part(&self.shared, keys, options, until));
        Ok(try_join_all(parts).await?.into_iter().flatten().collect())
    }
}

async fn read_part(
    shared: &Shared,
    keys: &[Key],
    options: &Options,
    until: Instant,
) -> Result<Vec<ReadOutcome>, Error> {
    // A failure is of no matter: reading one by one meets it again, and knows what to do then.
    let mut found =
        ask(shared, keys, options, until).await.unwrap_or_else(|_| keys.iter().map(|_| None).collect());
    let missing: Vec<_> = found.iter_mut().zip(keys).filter(|(found, _)| found.is_none()).collect();
    let reading = missing.into_iter().map(|(found, key)| async move {
        let call = ReadCall { key: key.clone(), options };
        *found = Some(run(shared, &call, &mut Retries::of_read(), until).await?);
        Ok::<_, Error>(())
    });
    try_join_all(reading).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Asks one replica for all keys. None where it had no answer.
async fn ask(
    shared: &Shared,
    keys: &[Key],
    options: &Options,
    until: Instant,
) -> Result<Vec<Option<ReadOutcome>>, Failure> {
    let target = match &options.node {
        Some(node) => node.clone(),
        None => {
            target(shared, until, |routes, now| routes.reader(now, options.consistency.is_weak())).await?
        }
    };
    let until = until.min(Instant::now() + READ_ATTEMPT_TIMEOUT);
    let connection = shared.channels.get(&target, until).await?;
    let epoch = read_epoch(shared, options);
    let calls = keys.iter().map(|key| question(key, options)).collect();
    let mut outcomes: Vec<_> = keys.iter().map(|_| None).collect();
    let asking = async {
        if let Some(session) = connection.session(|| shared.header(Epoch::ZERO)) {
            session.call_many(epoch.0, timeout_ms(until), calls, &mut outcomes).await;
        }
        Ok(())
    };
    // Those that came in time count, whatever became of the others.
    let _ = reply(shared, &target, until, false, asking).await;
    let judged =
        keys.iter().zip(outcomes).map(|(key, result)| match answer(shared, &target, &connection, result?) {
            Ok((epoch, Answer::Read(found))) => outcome(shared, &target, key, epoch, found).ok(),
            Ok(_) => None,
            Err(failure) => {
                shared.learn(&failure);
                None
            }
        });
    Ok(judged.collect())
}
