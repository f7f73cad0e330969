//! People and ideas: invitations, joins and mergers, which take effect only when both sides have said yes.

use super::{Lab, Refusal, checked, next};
use crate::action::Action;
use crate::idea::{IdeaId, IdeaStatus};
use crate::link::{Link, LinkId, LinkKind, LinkStatus};
use crate::person::PersonId;
use crate::run::State;

/// A question that nobody answers in this time is let go.
const ANSWER_MS: u64 = 14 * 24 * 3600 * 1000;

impl Lab {
    pub(super) fn ask(
        &mut self,
        by: PersonId,
        kind: LinkKind,
        idea: IdeaId,
        to: Option<PersonId>,
        message: String,
    ) -> Result<Vec<Action>, Refusal> {
        self.person(by)?;
        let authors = self.idea(idea)?.authors.clone();
        let to = match (kind, to) {
            (LinkKind::Invite, None) => return Err("say who is invited".into()),
            (LinkKind::Invite, Some(to)) => {
                self.own_idea(by, idea)?;
                if authors.contains(&to) {
                    return Err(format!("{} is in already", self.person(to)?.name));
                }
                self.person(to)?;
                vec![to]
            }
            (LinkKind::Join, _) if authors.contains(&by) => return Err(format!("idea {} is yours already", idea.0)),
            (LinkKind::Join, _) => authors,
            (LinkKind::Merge(other), _) => {
                self.own_idea(by, idea)?;
                if other == idea {
                    return Err("an idea can't be merged into itself".into());
                }
                self.idea(other)?.authors.clone()
            }
        };
        if to.is_empty() {
            return Err(format!("nobody is left in idea {} to say yes; try it as an idea of your own", idea.0));
        }
        let message = if message.trim().is_empty() { String::new() } else { checked("the message", message)? };
        let same = |link: &&Link| {
            link.status == LinkStatus::Pending
                && link.from == by
                && link.idea == idea
                && link.kind == kind
                && link.to == to
        };
        if let Some(link) = self.links.values().find(same) {
            return Err(format!("you have asked that already, and {} has not answered yet", self.names(&link.to)));
        }
        let id = LinkId(next(self.links.last_key_value().map(|(id, _)| id.0)));
        let status = LinkStatus::Pending;
        let link = Link { id, kind, from: by, to, idea, message, status, created: self.now, answered: None };
        self.links.insert(id, link);
        self.changes.links.insert(id);
        Ok(vec![Action::Asked(id)])
    }

    pub(super) fn answer(&mut self, by: PersonId, id: LinkId, yes: bool) -> Result<Vec<Action>, Refusal> {
        let link = self.pending(id)?;
        if !link.to.contains(&by) {
            return Err(format!("question {} was put to {}", id.0, self.names(&link.to)));
        }
        let Link { kind, from, idea, .. } = *link;
        self.settle(id, if yes { LinkStatus::Accepted } else { LinkStatus::Declined });
        if yes {
            match kind {
                LinkKind::Invite => self.welcome(by, idea),
                LinkKind::Join => self.welcome(from, idea),
                LinkKind::Merge(other) => self.merge(other, idea),
            }
        }
        Ok(vec![Action::Done])
    }

    pub(super) fn withdraw(&mut self, by: PersonId, id: LinkId) -> Result<Vec<Action>, Refusal> {
        let link = self.pending(id)?;
        if link.from != by {
            return Err(format!("question {} is {}'s to take back", id.0, self.names(&[link.from])));
        }
        self.settle(id, LinkStatus::Withdrawn);
        Ok(vec![Action::Done])
    }

    /// Leaving is always allowed, and ends no run: those go on at the cost of who is left, or of the leaver if nobody is.
    pub(super) fn leave(&mut self, by: PersonId, id: IdeaId) -> Result<Vec<Action>, Refusal> {
        self.own_idea(by, id)?;
        self.change_idea(id, |idea| idea.authors.retain(|author| *author != by));
        for run in self.runs.values_mut().filter(|run| run.idea == id && !run.state.is_over() && run.owners.len() > 1) {
            run.owners.retain(|owner| owner.person != by);
            let left: f64 = run.owners.iter().map(|owner| owner.share).sum();
            run.owners.iter_mut().for_each(|owner| owner.share /= left);
            self.changes.runs.insert(run.id);
        }
        Ok(vec![Action::Done])
    }

    pub(super) fn park(&mut self, by: PersonId, id: IdeaId, parked: bool) -> Result<Vec<Action>, Refusal> {
        if let IdeaStatus::Merged(into) = self.own_idea(by, id)?.status {
            return Err(format!("idea {} goes on as part of idea {}", id.0, into.0));
        }
        self.change_idea(id, |idea| idea.status = if parked { IdeaStatus::Parked } else { IdeaStatus::Open });
        self.update_status(id);
        Ok(vec![Action::Done])
    }

    /// Questions that were open too long.
    pub(super) fn expire(&mut self) {
        let old = |link: &&Link| link.status == LinkStatus::Pending && self.now >= link.created + ANSWER_MS;
        let expired: Vec<LinkId> = self.links.values().filter(old).map(|link| link.id).collect();
        for id in expired {
            self.settle(id, LinkStatus::Expired);
        }
    }

    fn pending(&self, id: LinkId) -> Result<&Link, Refusal> {
        let link = self.links.get(&id).ok_or_else(|| format!("there is no question {}; see `minke inbox`", id.0))?;
        match link.status {
            LinkStatus::Pending => Ok(link),
            _ => Err(format!("question {} is settled already", id.0)),
        }
    }

    fn settle(&mut self, id: LinkId, status: LinkStatus) {
        if let Some(link) = self.links.get_mut(&id) {
            (link.status, link.answered) = (status, Some(self.now));
            self.changes.links.insert(id);
        }
    }

    /// Somebody becomes an author, and shares the cost of runs under way from now on.
    fn welcome(&mut self, person: PersonId, id: IdeaId) {
        if self.ideas.get(&id).is_some_and(|idea| idea.authors.contains(&person)) {
            return;
        }
        self.change_idea(id, |idea| idea.authors.push(person));
        let Some(authors) = self.ideas.get(&id).map(|idea| idea.authors.clone()) else { return };
        for run in self.runs.values_mut().filter(|run| run.idea == id && !run.state.is_over()) {
            run.owners = crate::person::equal_shares(&authors);
            self.changes.runs.insert(run.id);
        }
    }

    /// `from` goes on as part of `into`: with its authors, and its runs.
    fn merge(&mut self, from: IdeaId, into: IdeaId) {
        let Some(joining) = self.ideas.get(&from).map(|idea| idea.authors.clone()) else { return };
        self.change_idea(into, |idea| {
            let new = joining.into_iter().filter(|author| !idea.authors.contains(author)).collect::<Vec<_>>();
            idea.authors.extend(new);
        });
        self.change_idea(from, |idea| idea.status = IdeaStatus::Merged(into));
        for run in self.runs.values_mut().filter(|run| run.idea == from && run.state != State::Stopped) {
            run.idea = into;
            self.changes.runs.insert(run.id);
        }
        self.update_status(into);
    }
}
