//! Mirrors as a place that content is fetched from.

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use url::Url;

use super::{
    failure::{Failure, Why},
    transport::{Answer, Ask, Transport},
};
use crate::{
    error::Error,
    store::fetch::{Opened, Refused, Remote, Wanted},
};

impl Remote for Transport {
    fn open<'a>(
        &'a self,
        wanted: &'a Wanted,
        place: &'a Url,
        from: u64,
        validator: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Opened, Refused>> {
        async move {
            let ask = Ask { what: &wanted.what, from, same: validator, ..Ask::default() };
            let answer = match self.open(place, ask).await {
                // What an earlier run left is longer than what is there now.
                Err(Failure { why: Why::Range, .. }) if from > 0 => {
                    self.open(place, Ask { from: 0, same: None, ..ask }).await
                }
                answer => answer,
            };
            match answer {
                Ok(Answer::Body(body)) => {
                    let validator = body.validators.strongest().map(str::to_owned);
                    let pieces = body.pieces.map(|piece| piece.map_err(Error::from)).boxed();
                    Ok(Opened { from: body.from, total: body.total, validator, body: pieces })
                }
                Ok(Answer::NotModified) => Err(Refused::Other(Error::failed(format!(
                    "`{place}` answers that nothing changed, and was not asked that"
                )))),
                Err(Failure { why: Why::Absent, .. }) => Err(Refused::Absent),
                Err(Failure { why: Why::Unreachable, error, .. }) => Err(Refused::Unreachable(error)),
                Err(failure) => Err(Refused::Other(failure.error)),
            }
        }
        .boxed()
    }
}
