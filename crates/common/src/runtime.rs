//! The threads that run a service.

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    thread::{self, available_parallelism},
};

use clap::Args;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many cores there are for each of a service's threads, unless that is set: the database, the
/// broker and the other services take the rest, and a second thread that finds too little to do costs
/// more in waking up than it gains (docs/performance.md).
const CORES_A_THREAD: usize = 2;

/// On how many threads a service runs.
#[derive(Args, Clone, Copy, Debug)]
pub struct RuntimeSettings {
    /// Threads that run the service's tasks (the api's intake has one more); 0 is half of the
    /// machine's cores, at least 1
    #[arg(long, env, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub runtime_threads: u16,
}

impl RuntimeSettings {
    /// Runs a service to its end. What its threads still block on then is left behind.
    ///
    /// # Errors
    /// If the runtime could not be started.
    pub fn run<F: Future>(self, service: F) -> io::Result<F::Output> {
        let runtime = match self.threads() {
            // Nothing to hand over from thread to thread.
            1 => Builder::new_current_thread().enable_all().build()?,
            threads => Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build()?,
        };
        let output = runtime.block_on(service);
        runtime.shutdown_background();
        Ok(output)
    }

    fn threads(self) -> usize {
        match self.runtime_threads {
            0 => (cores() / CORES_A_THREAD).max(1),
            threads => usize::from(threads),
        }
    }
}

/// A thread with a runtime of its own, for tasks that must not queue behind all others. It ends when
/// this is dropped.
#[derive(Debug)]
pub struct Thread {
    handle: Handle,
    _ends: DropGuard,
}

impl Thread {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no runtime or thread to be had.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ends = end.clone().drop_guard();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(end.cancelled_owned()))?;
        Ok(Self {
            handle,
            _ends: ends,
        })
    }

    /// Where to spawn tasks for it.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// The cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::RuntimeFlavor,
        task::{spawn, yield_now},
    };

    use super::*;

    #[test]
    fn a_service_runs_on_one_thread_or_on_many() {
        for runtime_threads in [0, 1, 2, 5] {
            let settings = RuntimeSettings { runtime_threads };
            let sum = settings.run(async {
                let tasks: Vec<_> = (0..10)
                    .map(|number| {
                        spawn(async move {
                            yield_now().await;
                            number
                        })
                    })
                    .collect();
                let mut sum = 0;
                for task in tasks {
                    sum += task.await.unwrap();
                }
                sum
            });
            assert_eq!(sum.unwrap(), 45, "{runtime_threads} threads");
        }
    }

    #[tokio::test]
    async fn tasks_of_another_thread_run_there() {
        let thread = Thread::start("beside").unwrap();
        let task = thread.handle().spawn(async {
            yield_now().await;
            std::thread::current().name().map(ToOwned::to_owned)
        });
        assert_eq!(task.await.unwrap().as_deref(), Some("beside"));
    }

    #[test]
    fn one_thread_hands_nothing_over() {
        let flavor = |runtime_threads| {
            let settings = RuntimeSettings { runtime_threads };
            settings
                .run(async { Handle::current().runtime_flavor() })
                .unwrap()
        };
        assert_eq!(flavor(1), RuntimeFlavor::CurrentThread);
        assert_eq!(flavor(2), RuntimeFlavor::MultiThread);
    }

    #[test]
    fn there_is_a_thread_for_every_two_cores_and_one_for_one() {
        let threads = RuntimeSettings { runtime_threads: 0 }.threads();
        assert_eq!(threads, (cores() / 2).max(1));
        assert_eq!(RuntimeSettings { runtime_threads: 3 }.threads(), 3);
    }
}
