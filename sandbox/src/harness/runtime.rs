//! The tokio runtime of an `async` test, and of parameters in a plain test.

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

    use crate::harness::TestOutcome;

    /// The runtime of an `async` test.
    #[derive(Debug, Clone, Copy)]
    pub enum Flavor {
        CurrentThread,
        /// With this number of workers; default: one for each processor.
        MultiThread(Option<usize>),
    }

    fn started(builder: &mut Builder) -> Runtime {
        let runtime = builder.enable_all().build();
        runtime.unwrap_or_else(|error| panic!("could not start a tokio runtime: {error}"))
    }

    /// Runs the futures of a test: parameters, and the body of an `async fn`.
    #[derive(Debug, Default)]
    pub struct Waiter(OnceLock<Runtime>);

    impl Waiter {
        /// Starts the runtime of an `async fn`.
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

        /// Runs an `async` test within the runtime, so that parameters can be dropped in it too.
        pub(in crate::harness) fn within<T>(self, body: impl FnOnce(&Self) -> T) -> T {
            #[cfg(feature = "postgres")]
            let _marked = crate::connect::AsyncTest::begin();
            let _entered = self.runtime().enter();
            body(&self)
        }

        /// Runs the body of an `async fn`.
        pub fn run<T: TestOutcome>(&self, body: Pin<&mut dyn Future<Output = T>>) -> ExitCode {
            self.runtime().block_on(body).report()
        }

        /// # Panics
        /// On a thread that runs a runtime, if the future has to wait.
        pub fn wait<F: Future>(&self, future: F) -> F::Output {
            let runtime = self.runtime();
            let mut future = std::pin::pin!(future);
            // A future that is ready at once may itself block on a runtime, which `block_on`
            // forbids.
            let entered = runtime.enter();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            drop(entered);
            runtime.block_on(future)
        }

        fn runtime(&self) -> &Runtime {
            // A worker drives the connections while a plain test uses them.
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
