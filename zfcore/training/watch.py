"""Watchers of a run under way: the sums of an epoch, a loss that does not fall, the user's Ctrl-C."""
import math
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

from zfcore.terminal import ENDING, Bar, Ended, status_of, warn


class Stop(Exception):
    """The user asked to stop, by the signal `number`; everything is saved. `status` is what a command ends with."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """130 Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
        return status_of(self)


@dataclass
class Sums:
    """Sums that an epoch adds up over its batches; `clamped` counts filters that the RMS limit scaled back."""
    loss: float = 0.0
    seconds: float = 0.0
    wrong: int = 0
    count: int = 0
    batches: int = 0
    clamped: int = 0


class StallGuard:
    """Notices a loss that stays at ln(classes), the loss of guessing, and says once which cures there are.

    `after` steps with the running mean of the loss above 0.98 ln(classes) count as a stall."""

    def __init__(self, classes, after=300):
        self.guess, self.after, self.mean, self.steps, self.said = math.log(classes), after, None, 0, False

    def update(self, loss, steps=1):
        """Tell the mean loss of the next `steps` steps; returns the advice when it is due, else None."""
        kept = 0.98**steps
        self.mean = loss if self.mean is None else kept*self.mean + (1 - kept)*loss
        self.steps = self.steps + steps if self.mean > 0.98*self.guess else 0
        if self.steps < self.after or self.said:
            return None
        self.said = True
        return (f"the loss has stayed at ln(classes) = {self.guess:.2f}, that of guessing, for {self.after} steps. Cures: "
                f"--init he (N(0, 0.01) is too small for few maps or small pictures), a larger --lr, or a look at whether the "
                f"labels are right")


@contextmanager
def told_by_the_loss():
    """`with told_by_the_loss():` NumPy is silent about numbers that leave float32, on whichever thread: the loss is infinite or
    NaN then, or stays that of guessing where a norm has divided them to 0, and whoever looks at it says so in a sentence."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(overflow|invalid value) encountered", RuntimeWarning)
        yield


class Interrupt:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into `asked`, its number, so that the step under way is finished and saved; the
    next one stops at once, as Ended. In another thread than the main one, where nobody can hear signals, it does nothing; and
    what the process is to ignore (nohup) it ignores. It answers if `aloud`."""

    def __init__(self, aloud=True):
        self.asked, self.before, self.aloud = 0, {}, aloud       # signals and who heard them before

    def __enter__(self):
        self.asked, self.before = 0, {}

        def ask(number, frame):
            if self.asked:
                raise Ended(number)
            self.asked = number
            if self.aloud:
                warn("stopping after this step; Ctrl-C again stops at once, without saving")
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, ask) for s in ENDING if signal.getsignal(s) != signal.SIG_IGN}
        return self

    def __exit__(self, *_):
        for s, handler in self.before.items():
            signal.signal(s, handler)


class Watched(Bar):
    """A bar that raises Stop when it is moved on after somebody was `asked` to, () -> the signal's number or 0."""

    def __init__(self, asked, *about, **options):
        self.asked = asked
        super().__init__(*about, **options)

    def update(self, n=1):
        super().update(n)
        if number := self.asked():
            raise Stop(number)
