use std::time::Duration;

/// How long to wait before the next try: doubling from `first` to `longest`, with jitter, so that
/// publishers that failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first: first.min(longest),
            longest,
            next: first.min(longest),
        }
    }

    /// The pause after another failure: the half to the whole of the present step.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// To be called after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for expected in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!(
                pause >= ms(expected) / 2 && pause <= ms(expected),
                "{pause:?}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(100));
    }
}
