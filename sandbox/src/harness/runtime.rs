//! The runtime that a test runs on, and that of parameters whose test has none.

#[cfg(feature = "tokio")]
pub use with_tokio::{Flavor, Waiter};
#[cfg(not(feature = "tokio"))]
pub use without_tokio::Waiter;

#[cfg(feature = "postgres")]
pub(crate) use flag::runs_async_test;

/// Whether this thread runs an `async` test: what blocks is then refused with more than a panic.
#[cfg(feature = "postgres")]
mod flag {
    use std::cell::Cell;

    thread_local!(static ASYNC: Cell<bool> = const { Cell::new(false) });

    #[cfg(feature = "tokio")]
    pub(super) fn set(on: bool) {
        ASYNC.set(on);
    }

    pub(crate) fn runs_async_test() -> bool {
        ASYNC.get()
    }
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::OnceLock;
    use std::task::{Context, Poll, Waker};

    use tokio::runtime::{Builder, Runtime};

    /// The runtime of an `async` test.
    #[derive(Debug, Clone, Copy)]
    pub enum Flavor {
        CurrentThread,
        /// With that many workers, by default one for each processor.
        MultiThread(Option<usize>),
    }

    impl Flavor {
        pub(in crate::harness) fn block_on<T>(self, body: impl Future<Output = T>) -> T {
            let runtime = match self {
                Self::CurrentThread => started(&mut Builder::new_current_thread()),
                Self::MultiThread(None) => started(&mut Builder::new_multi_thread()),
                Self::MultiThread(Some(workers)) => {
                    started(Builder::new_multi_thread().worker_threads(workers))
                }
            };
            #[cfg(feature = "postgres")]
            super::flag::set(true);
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
            #[cfg(feature = "postgres")]
            super::flag::set(false);
            // Tasks that outlive the test must not hold up its end.
            runtime.shutdown_background();
            outcome.unwrap_or_else(|payload| panic::resume_unwind(payload))
        }
    }

    fn started(builder: &mut Builder) -> Runtime {
        let runtime = builder.enable_all().build();
        runtime.unwrap_or_else(|error| panic!("could not start a tokio runtime: {error}"))
    }

    /// Waits for parameters of a test that is no `async fn`.
    #[derive(Debug, Default)]
    pub struct Waiter(OnceLock<Runtime>);

    impl Waiter {
        /// # Panics
        /// Where a runtime is running, if the future has to wait.
        pub fn wait<F: Future>(&self, future: F) -> F::Output {
            // A worker of its own goes on driving the connections while the test uses them.
            let runtime = self.0.get_or_init(|| started(Builder::new_multi_thread().worker_threads(1)));
            let mut future = std::pin::pin!(future);
            // What need not wait may itself block on a runtime, which it could not within `block_on`.
            let entered = runtime.enter();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            drop(entered);
            runtime.block_on(future)
        }
    }

    impl Drop for Waiter {
        fn drop(&mut self) {
            if let Some(runtime) = self.0.take() {
                runtime.shutdown_background();
            }
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod without_tokio {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    /// Waits for parameters.
    #[derive(Debug, Default)]
    pub struct Waiter(());

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    impl Waiter {
        pub fn wait<F: Future>(&self, future: F) -> F::Output {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut future = std::pin::pin!(future);
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
                thread::park();
            }
        }
    }
}
