//! Which jobs a channel has been given, live or not: a share of one that is forgotten is late, and not a mistake.

use crate::mining::template_jobs::job_maker::is_declared;

/// Numbers that were given out one after the other.
#[derive(Debug, Default)]
pub(super) struct Numbers(Option<(u32, u32)>);

impl Numbers {
    /// The next number, which is not lower than those before.
    pub(super) fn insert(&mut self, number: u32) {
        self.0 = match self.0 {
            Some((first, last)) if last <= number => Some((first, number)),
            // They start over once in four thousand million.
            _ => Some((number, number)),
        };
    }

    fn contains(&self, number: u32) -> bool {
        self.0
            .is_some_and(|(first, last)| (first..=last).contains(&number))
    }
}

/// The jobs that a channel has been given: those of templates and declared ones are numbered apart.
#[derive(Debug, Default)]
pub(super) struct GivenJobs {
    pub(super) template: Numbers,
    pub(super) custom: Numbers,
}

impl GivenJobs {
    /// Whether the job was one of the channel's. Between two of its numbers there may be a few of other channels of the
    /// same connection.
    pub(super) fn contains(&self, job_id: u32) -> bool {
        match is_declared(job_id) {
            true => self.custom.contains(job_id),
            false => self.template.contains(job_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_was_given_is_told_from_one_that_never_was() {
        let template = |number: u32| (1 << 31) + number;
        let mut given = GivenJobs::default();
        assert!(!given.contains(template(0)) && !given.contains(1));
        for number in 7..100 {
            given.template.insert(template(number));
        }
        given.custom.insert(1);
        given.custom.insert(2);
        assert!(given.contains(template(7)) && given.contains(template(99)));
        assert!(!given.contains(template(6)) && !given.contains(template(100)));
        assert!(given.contains(2) && !given.contains(3));
    }
}
