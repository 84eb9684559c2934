//! From the type of a parameter to its value.
//!
//! `Sandbox` by value is the one type that cannot be made from a `&Sandbox`. Only the compiler can
//! recognise it under any name: it finds a method of `Asked<Sandbox>` before the method of
//! `ByTrait<T>`, to which every `Asked` dereferences. A method call needs no trait in scope and
//! compiles faster than a trait's.

use std::any::type_name;
use std::cell::Ref;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::time::Instant;

use super::databases::Lease;
use super::runtime::Waiter;
use crate::connect::FromSandbox;
use crate::engine::Engine;
use crate::sandbox::Sandbox;

/// The type of a parameter.
#[derive(Debug)]
pub struct Asked<T>(ByTrait<T>);

/// The type of a parameter that is made from the sandbox: every type but the sandbox itself.
#[derive(Debug)]
pub struct ByTrait<T>(PhantomData<T>);

impl<T> Asked<T> {
    #[expect(clippy::new_without_default, reason = "a default would hide the type, which selects the method")]
    #[must_use]
    pub const fn new() -> Self {
        Self(ByTrait(PhantomData))
    }
}

impl<T> Deref for Asked<T> {
    type Target = ByTrait<T>;

    fn deref(&self) -> &ByTrait<T> {
        &self.0
    }
}

/// A parameter that is made.
#[derive(Debug)]
pub struct Ready<T>(T);

impl<T> Ready<T> {
    #[must_use]
    pub fn by_value(self) -> T {
        self.0
    }

    #[must_use]
    pub const fn by_reference(&self) -> &T {
        &self.0
    }
}

impl<T> ByTrait<T> {
    /// Compiles if one engine alone makes the type, where nothing names the engine of a test with
    /// several. The compiler's message consists of the names here.
    pub const fn name_the_engine<OneOfSeveralEngines: Engine>(&self)
    where
        T: FromSandbox<OneOfSeveralEngines>,
    {
    }

    /// # Panics
    /// With [`Unmade`] if the type returns an error. No panic hook runs.
    pub fn make<E: Engine>(&self, lease: &Lease<E>, waiter: &Waiter) -> Ready<T>
    where
        T: FromSandbox<E>,
    {
        let sandbox = Lent(lease.lend());
        let begin = Instant::now();
        let made = waiter.wait(T::from_sandbox(&sandbox));
        sandbox.note_connect(begin.elapsed());
        match made {
            Ok(made) => Ready(made),
            Err(error) => resume_unwind(Box::new(Unmade::new::<T>(error))),
        }
    }
}

/// A parameter that takes or borrows the sandbox once all others are made.
#[derive(Debug)]
pub struct Later<'a, E: Engine>(&'a Lease<E>);

/// The sandbox, borrowed.
#[derive(Debug)]
pub struct Lent<'a, E: Engine>(Ref<'a, Sandbox<E>>);

impl<E: Engine> Asked<Sandbox<E>> {
    /// Compiles, since the type names its engine.
    pub const fn name_the_engine(&self) {}

    #[must_use]
    pub const fn make<'a>(&self, lease: &'a Lease<E>, _: &Waiter) -> Later<'a, E> {
        Later(lease)
    }
}

impl<'a, E: Engine> Later<'a, E> {
    #[must_use]
    pub fn by_value(self) -> Sandbox<E> {
        self.0.take()
    }

    #[must_use]
    pub fn by_reference(&self) -> Lent<'a, E> {
        Lent(self.0.lend())
    }
}

impl<E: Engine> Deref for Lent<'_, E> {
    type Target = Sandbox<E>;

    fn deref(&self) -> &Sandbox<E> {
        &self.0
    }
}

/// The error of a parameter that could not be made. It unwinds the test like a panic: a `Result`
/// would add a branch and a conversion to the compilation of every test.
#[derive(Debug)]
pub struct Unmade {
    what: &'static str,
    why: Box<dyn Error + Send + Sync>,
}

impl Unmade {
    #[must_use]
    pub fn new<T>(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: type_name::<T>(), why: why.into() }
    }
}

impl fmt::Display for Unmade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not make the parameter of type `{}` from the sandbox: {}", self.what, self.why)?;
        let mut cause = self.why.source();
        while let Some(error) = cause {
            write!(f, "\n  cause: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
