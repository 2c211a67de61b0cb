//! How long an account that others hold is passed by before it is waited for.

use common::types::AccountId;

use super::attempt::Manner;

/// How often in a row the longest due head's account is passed by before it is waited for.
const PASSES: u32 = 3;
/// The same at most, behind waits in vain: each costs all other queues a second, and whoever holds an
/// account for minutes is to cost them a part of their time and not nearly all of it.
const PASSES_MAX: u32 = 768;

#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How often in a row the longest due head's account was passed by.
    passed_by: u32,
    /// The account that was waited for in vain, and how often in a row.
    in_vain: Option<(AccountId, u32)>,
}

/// Where an attempt begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) account: AccountId,
    /// It is the longest due head's.
    pub(super) is_longest_due: bool,
}

impl Patience {
    /// Whether it is time to wait for the account.
    pub(super) fn manner(&self, account: AccountId) -> Manner {
        if self.passed_by < self.passes(account) {
            Manner::PassBy
        } else {
            Manner::Wait
        }
    }

    /// How often it is passed by: twice as often behind each wait in vain.
    fn passes(&self, account: AccountId) -> u32 {
        match self.in_vain {
            Some((held, waits)) if held == account => {
                let doubled = 2_u32.saturating_pow(waits).saturating_mul(PASSES);
                doubled.min(PASSES_MAX)
            }
            _ => PASSES,
        }
    }

    /// Notes what came of an attempt: the account whose events were tried first, if any.
    pub(super) fn learn(&mut self, manner: Manner, begin: Begin, tried: Option<AccountId>) {
        match (manner, tried) {
            // Its slices go on: one look at the others, and it is waited for again.
            (Manner::Wait, Some(_)) => {
                self.passed_by = PASSES - 1;
                self.in_vain = None;
            }
            // Somebody holds it for long, or was faster: the others have their turns first.
            (Manner::Wait, None) => {
                self.passed_by = 0;
                let before = self.in_vain.filter(|(held, _)| *held == begin.account);
                let waits = before.map_or(0, |(_, waits)| waits);
                self.in_vain = Some((begin.account, waits.saturating_add(1)));
            }
            (Manner::PassBy, Some(tried)) if begin.is_longest_due && tried == begin.account => {
                self.passed_by = 0;
                self.in_vain = self.in_vain.filter(|(held, _)| *held != tried);
            }
            (Manner::PassBy, Some(_)) if !begin.is_longest_due => {}
            (Manner::PassBy, _) => self.passed_by = self.passed_by.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the account by, as others come before it, until it is to be waited for; answers how often.
    fn pass_by(patience: &mut Patience, held: Begin) -> u32 {
        let mut passes = 0;
        while patience.manner(held.account) == Manner::PassBy {
            patience.learn(Manner::PassBy, held, Some(AccountId::new()));
            passes += 1;
        }
        passes
    }

    fn longest_due() -> Begin {
        Begin {
            account: AccountId::new(),
            is_longest_due: true,
        }
    }

    #[test]
    fn an_account_that_is_held_for_long_is_waited_for_ever_more_seldom() {
        let (mut patience, held) = (Patience::default(), longest_due());
        for expected in [3, 6, 12, 24, 48, 96, 192, 384, 768, 768] {
            assert_eq!(pass_by(&mut patience, held), expected);
            patience.learn(Manner::Wait, held, None);
        }
        // Another account is waited for as if nothing had been.
        assert_eq!(pass_by(&mut patience, longest_due()), PASSES);
    }

    #[test]
    fn patience_with_an_account_begins_anew_when_its_turn_came() {
        for manner in [Manner::Wait, Manner::PassBy] {
            let (mut patience, held) = (Patience::default(), longest_due());
            for _ in 0..5 {
                pass_by(&mut patience, held);
                patience.learn(Manner::Wait, held, None);
            }
            patience.learn(manner, held, Some(held.account));
            assert!(pass_by(&mut patience, held) <= PASSES, "{manner:?}");
        }
    }

    #[test]
    fn who_begins_elsewhere_and_finds_something_has_passed_nobody_by() {
        let mut patience = Patience::default();
        let elsewhere = Begin {
            account: AccountId::new(),
            is_longest_due: false,
        };
        for _ in 0..PASSES {
            patience.learn(Manner::PassBy, elsewhere, Some(elsewhere.account));
        }
        assert_eq!(patience.manner(AccountId::new()), Manner::PassBy);
        for _ in 0..PASSES {
            patience.learn(Manner::PassBy, elsewhere, None);
        }
        assert_eq!(patience.manner(AccountId::new()), Manner::Wait);
    }
}
