//! From what a person names to what the protocols ask for.

use tributary_protocol::{
    access::{Range, Selection},
    ids::{DatasetId, Did, StreamId},
};
use tributary_store::Store;

use super::{
    api::{Code, DatasetSummary, Problem, SelectionRequest},
    catalog::{Feed, feed, feeds, find_dataset},
};
use crate::feeds::PullSelection;

/// Data of one machine, as they were named.
#[derive(Debug)]
pub(crate) struct Target {
    /// The machine.
    pub(crate) machine: Did,
    feed: Option<Feed>,
    datasets: Vec<DatasetSummary>,
    streams: Vec<StreamId>,
    from_ms: Option<u64>,
    to_ms: Option<u64>,
    live_seconds: Option<u32>,
}

impl Target {
    /// Looks up what `request` names. `own` is this node: without a machine named, its own data are not meant.
    pub(crate) fn find(store: &Store, own: &Did, request: &SelectionRequest) -> Result<Self, Problem> {
        if request.datasets.is_empty() && request.streams.is_empty() {
            return Err(Problem::usage("no data are named").hint("name a dataset or a stream"));
        }
        let datasets =
            request.datasets.iter().map(|text| find_dataset(store, text)).collect::<Result<Vec<_>, Problem>>()?;
        let mut machine = request.machine;
        for dataset in &datasets {
            if machine.is_some_and(|machine| machine != dataset.machine) {
                return Err(Problem::usage("the datasets are of different machines")
                    .hint("name those of one machine at a time"));
            }
            machine = Some(dataset.machine);
        }
        let machine = match machine {
            Some(machine) => machine,
            None => only_other(store, own)?,
        };
        let known = feed(store, &machine)?;
        let mut streams = Vec::new();
        for name in &request.streams {
            streams.push(stream_of(&machine, known.as_ref(), name)?);
        }
        let SelectionRequest { from_ms, to_ms, live_seconds, .. } = *request;
        Ok(Self { machine, feed: known, datasets, streams, from_ms, to_ms, live_seconds })
    }

    /// What is asked for in an access request.
    pub(crate) fn selection(&self) -> Result<Selection, Problem> {
        let datasets = self.datasets.iter().map(|dataset| Range::Dataset(dataset.dataset));
        let streams = self.streams.iter().map(|stream| match self.live_seconds {
            Some(seconds) => Range::Live { stream: *stream, seconds },
            None => Range::Time {
                stream: *stream,
                from_ms: self.from_ms.unwrap_or(0),
                // Capture clocks may be ahead: without an end, everything there is.
                to_ms: self.to_ms.unwrap_or(u64::MAX),
            },
        });
        Selection::new(datasets.chain(streams).collect()).map_err(|error| Problem::of(Code::Usage, &error))
    }

    /// What is pulled.
    pub(crate) fn pulls(&self) -> Result<Vec<PullSelection>, Problem> {
        self.no_future("pulled")?;
        let mut pulls: Vec<PullSelection> =
            self.datasets.iter().map(|dataset| PullSelection::Dataset(dataset.dataset)).collect();
        if self.from_ms.is_none() && self.to_ms.is_none() {
            pulls.extend(self.streams.iter().map(|stream| PullSelection::Stream(*stream)));
        } else {
            pulls.extend(self.of_streams(false)?.into_iter().map(PullSelection::Dataset));
        }
        Ok(pulls)
    }

    /// The datasets that are meant: those named, open or not, and of streams those that were closed.
    pub(crate) fn datasets(&self) -> Result<Vec<DatasetId>, Problem> {
        self.no_future("exported")?;
        let mut all: Vec<DatasetId> = self.datasets.iter().map(|dataset| dataset.dataset).collect();
        all.extend(self.of_streams(true)?);
        let mut seen = std::collections::HashSet::new();
        all.retain(|dataset| seen.insert(*dataset));
        Ok(all)
    }

    fn no_future(&self, what: &str) -> Result<(), Problem> {
        if self.live_seconds.is_some() {
            return Err(Problem::usage(format!("what is yet to come cannot be {what}")).hint("leave out --live"));
        }
        Ok(())
    }

    /// The datasets of the streams that touch the time.
    fn of_streams(&self, closed: bool) -> Result<Vec<DatasetId>, Problem> {
        let (from, to) = (self.from_ms.unwrap_or(0), self.to_ms.unwrap_or(u64::MAX));
        let mut found = Vec::new();
        for stream in &self.streams {
            let before = found.len();
            found.extend(
                self.feed
                    .iter()
                    .flat_map(|feed| &feed.datasets)
                    .filter(|dataset| dataset.stream_id == *stream && (dataset.closed || !closed))
                    .filter(|dataset| dataset.to_ms >= from && dataset.from_ms <= to)
                    .map(|dataset| dataset.dataset),
            );
            if found.len() == before {
                return Err(Problem::not_found(format!("no dataset of stream {stream} in that time is known here"))
                    .hint("list them with `tributary dataset ls`"));
            }
        }
        Ok(found)
    }
}

fn only_other(store: &Store, own: &Did) -> Result<Did, Problem> {
    let others: Vec<Did> = feeds(store)?.into_iter().filter(|did| did != own).collect();
    match others.as_slice() {
        [only] => Ok(*only),
        [] => Err(Problem::not_found("no machine is followed").hint("follow one with `tributary subscribe LINK`")),
        _ => Err(Problem::usage("more than one machine is followed").hint("say which with --machine DID")),
    }
}

/// The stream of a machine by its public name or its id.
pub(crate) fn stream_of(machine: &Did, feed: Option<&Feed>, name: &str) -> Result<StreamId, Problem> {
    let streams = feed.map(|feed| feed.streams.as_slice()).unwrap_or_default();
    let found = streams.iter().find(|stream| stream.name == name || stream.stream.to_string() == name);
    found.map(|stream| stream.stream).ok_or_else(|| {
        let known: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
        let problem = Problem::not_found(format!("{machine} has no stream {name:?}, as far as is known here"));
        match known.as_slice() {
            [] => problem.hint("nothing of its feed has come yet; follow it with `tributary subscribe LINK`"),
            _ => problem.hint(format!("it has: {}", known.join(", "))),
        }
    })
}
