"""The accounts of runs: what a run has spent is kept with it when it ends, and its account is forgotten.

The account knows more than an attempt does. What a process held when it died is booked by whoever finds it dead, which
may be after the run has ended elsewhere (a process of another host counts as dead after a lease); and a call may
outlive the run that has stopped waiting for it. Until then what is held counts in full, and the account stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from escalade.errors import StoreUnavailable
from escalade.pipelines.durable.store import ENDED, RunRow, Store
from escalade.registry.budgets import run_account
from escalade.registry.ledger import Account, Ledger
from escalade.registry.stores.shared import SharedLedger

logger = logging.getLogger(__name__)


class Accounts:
    """Those of the runs of a store. `ledger`: where they are now, None for nowhere. `left`: runs that have
    ended, and have one still. Methods block, and raise StoreUnavailable.
    """

    def __init__(self, store: Store, ledger: Callable[[], Ledger | None]) -> None:
        self._store, self._ledger = store, ledger
        self.left: set[str] = set()

    def spent(self, run: RunRow) -> int:
        """What all attempts at the run have cost, nano-dollars; as its row says where it has no account, and while the
        ledger is away.
        """
        try:
            account = self._account(run.run_id)
        except StoreUnavailable as error:
            logger.warning("the ledger can't be asked what run %s has spent: %s", run.run_id, error)
            return run.spent
        return run.spent if account is None else account.used + account.overrun

    def end(self, run: RunRow) -> bool:
        """Keep how a run has ended, and what it has spent; its account goes. False when another attempt has begun."""
        ended = replace(run, spent=self.spent(run))
        if not self._store.finish(ended):
            return False
        self.left.add(run.run_id)
        try:
            self.close(ended)
        except StoreUnavailable as error:
            logger.warning("the account of run %s is left in the ledger for now: %s", run.run_id, error)
        return True

    def close(self, run: RunRow) -> bool:
        """Bring the row of a run that has ended up to date, and forget its account: is it gone?"""
        account, ledger = self._account(run.run_id), self._ledger()
        if account is None or ledger is None:
            self.left.discard(run.run_id)
            return True
        spent = account.used + account.overrun
        if spent != run.spent:
            self._store.correct(run.run_id, spent)
        if account.held:
            self.left.add(run.run_id)
            return False
        ledger.forget(account.name)
        self.left.discard(run.run_id)
        return True

    def tidy(self) -> None:
        """Close those that had to stay when their runs ended."""
        for run_id in list(self.left):
            run = self._store.get(run_id)
            if run is None or run.status not in ENDED:  # it goes on, and ends again
                self.left.discard(run_id)
            else:
                self.close(run)

    def _account(self, run_id: str) -> Account | None:
        """As of now: what the dead held is booked."""
        ledger, name = self._ledger(), run_account(run_id)
        account = None if ledger is None else ledger.account(name)
        if account is None or not account.held or not isinstance(ledger, SharedLedger):
            return account
        ledger.sweep()
        return ledger.account(name)
