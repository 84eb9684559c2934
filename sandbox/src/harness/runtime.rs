//! The runtime that a test runs on, and that of parameters whose test has none.

#[cfg(feature = "tokio")]
pub use with_tokio::{Flavor, Waiter};
#[cfg(not(feature = "tokio"))]
pub use without_tokio::Waiter;

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::pin::Pin;
    use std::process::ExitCode;
    use std::sync::OnceLock;
    use std::task::{Context, Poll, Waker};

    use tokio::runtime::{Builder, Runtime};

    use crate::harness::Outcome;

    /// The runtime of an `async` test.
    #[derive(Debug, Clone, Copy)]
    pub enum Flavor {
        CurrentThread,
        /// With that many workers, by default one for each processor.
        MultiThread(Option<usize>),
    }

    fn started(builder: &mut Builder) -> Runtime {
        let runtime = builder.enable_all().build();
        runtime.unwrap_or_else(|error| panic!("could not start a tokio runtime: {error}"))
    }

    /// Runs what is asynchronous in a test: parameters, and the body of an `async fn`.
    #[derive(Debug, Default)]
    pub struct Waiter(OnceLock<Runtime>);

    impl Waiter {
        /// That of an `async fn`, which has its runtime from the beginning.
        pub(in crate::harness) fn of_async(flavor: Flavor) -> Self {
            let runtime = match flavor {
                Flavor::CurrentThread => started(&mut Builder::new_current_thread()),
                Flavor::MultiThread(None) => started(&mut Builder::new_multi_thread()),
                Flavor::MultiThread(Some(workers)) => {
                    started(Builder::new_multi_thread().worker_threads(workers))
                }
            };
            Self(OnceLock::from(runtime))
        }

        /// Runs an asynchronous test. What its parameters do outside of any task, such as to be dropped, they do within the
        /// runtime.
        pub(in crate::harness) fn within<T>(self, body: impl FnOnce(&Self) -> T) -> T {
            #[cfg(feature = "postgres")]
            let _marked = crate::connect::AsyncTest::begin();
            let _entered = self.runtime().enter();
            body(&self)
        }

        /// Runs the body of an `async fn`.
        pub fn run<T: Outcome>(&self, body: Pin<&mut dyn Future<Output = T>>) -> ExitCode {
            self.runtime().block_on(body).report()
        }

        /// # Panics
        /// Where a runtime is running, if the future has to wait.
        pub fn wait<F: Future>(&self, future: F) -> F::Output {
            let runtime = self.runtime();
            let mut future = std::pin::pin!(future);
            // What need not wait may itself block on a runtime, which it could not within `block_on`.
            let entered = runtime.enter();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            drop(entered);
            runtime.block_on(future)
        }

        fn runtime(&self) -> &Runtime {
            // In a plain test a worker of its own goes on driving the connections while the test uses them.
            self.0.get_or_init(|| started(Builder::new_multi_thread().worker_threads(1)))
        }
    }

    impl Drop for Waiter {
        fn drop(&mut self) {
            // Tasks that outlive the test must not hold up its end.
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
