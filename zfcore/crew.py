"""Floor 7: --devices N of a study, or of a pass over pictures: its units are done in so many processes of this machine, each
with a device of its own, which take the next one in turn.

    with crew(3, "auto", "train.ablation:served", output="study", ...) as three:
        three.work(units, take, bar)

The processes are told what to do, and tell what they have done, in lines of JSON through pipes; nothing else that they would
say is heard, as the one that started them speaks for all. They do not outlive it, stop when it is stopped, everything saved,
and where one of them is killed another does what it was at: as the units are independent, the results are those of one process,
to the bit.
"""
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import nullcontext
from importlib import import_module

from zfcore import gpu
from zfcore.check import Expected, exit_with_message
from zfcore.files import said
from zfcore.ranks import LOST, Failed
from zfcore.ranks.watch import end_with
from zfcore.system import cores
from zfcore.terminal import plural, quiet, refusal, warn
from zfcore.training import Stop
from zfcore.training.folder import Busy

THREADS = "ZFCORE_CORES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
HELP = ("do the independent parts in so many processes, each on a GPU of its own, or sharing the cores: the same numbers as "
        "one, N times its memory (1)")


def crew(devices, device, served, **facts):
    """`with crew(...) as several:` the Crew of so many processes on devices of the kind `device`; None for one, which works
    here. `served` is "module:function", where function(**facts) gives do(order, progress, wait) -> what JSON can hold. Raises
    Expected where there are not so many GPUs."""
    return Crew(visible_gpus(device, devices), served, facts) if devices > 1 else nullcontext()


class Unit:
    """A piece of a study's work, which is done once.

    name        what the bar calls it
    size        what it counts in the bar, of which so much is `done`
    lock        the name of the lock of whoever is at it; "": the study has one for all
    failure     the sentence with which it failed the last time, or \"\"
    order       what another process needs to know to do it, as JSON can hold it"""
    size, lock, failure = 1, "", ""

    @property
    def finished(self):
        return self.done >= self.size


def visible_gpus(device, wanted):
    """CUDA_VISIBLE_DEVICES of each of so many `wanted` processes: a GPU of its own, or none for a CPU."""
    if device == "cpu":
        return [None]*wanted
    try:
        there = gpu.count()
    except Expected:
        if device == "gpu":
            raise
        return [None]*wanted
    if wanted > there:
        raise Expected("--devices", f"at most the {plural(there, 'GPU')} that there {'is' if there == 1 else 'are'}", wanted,
                       "or --device cpu, where processes share the cores")
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:wanted] or [str(k) for k in range(wanted)]


# ------------------------------------------------------------------------------------------------------ the one that speaks
class Member:
    """One process of a crew, and the `unit` that it is at, of which so much is done: `moved`."""

    def __init__(self, number, card, threads, told, first):
        self.number, self.unit, self.moved = number, None, 0
        self.name = f"process {number}" + (f" (GPU {card})" if card is not None else "")
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)),
                       **({} if card is None else {"CUDA_VISIBLE_DEVICES": card})}
        self.process = subprocess.Popen([sys.executable, "-m", "zfcore.crew"], env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE,
                                        text=True, encoding="utf-8", start_new_session=True)       # Ctrl-C is told by one alone
        threading.Thread(target=self._hear, args=(told,), name=self.name, daemon=True).start()
        self.send(first)

    def _hear(self, told):
        try:
            for line in self.process.stdout:
                if line.endswith("\n"):                    # one that was killed may leave half a line
                    told.put((self, json.loads(line)))
        except Exception as error:                         # whatever it is, nobody waits for ever
            self.process.kill()
            told.put((self, {"failed": f"expected lines of JSON from it, got {said(str(error))}"}))
        finally:
            told.put((self, {"ended": self.process.wait()}))

    def send(self, message):
        """Tell it something; one that has gone is noticed by `_hear`."""
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def begin(self, unit, wait):
        self.unit, self.moved = unit, unit.done
        self.send({"order": unit.order, "wait": wait})

    def leave(self):
        """Let it end when it has nothing more to do."""
        try:
            self.process.stdin.close()
        except OSError:
            pass


class Crew:
    """`with Crew(cards, served, facts) as crew:` a process for each of `cards`, started when there is something for it to
    do."""

    def __init__(self, cards, served, facts):
        self.first = {"serve": served, "facts": facts, "parent": os.getpid()}
        self.waiting, self.size = deque(enumerate(cards, 1)), len(cards)        # not started yet
        self.members, self.told = [], queue.SimpleQueue()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            for member in self.members:
                if error is not None:
                    member.process.send_signal(signal.SIGTERM)
                member.leave()
            for member in self.members:
                member.process.wait()
        finally:                                           # a second Ctrl-C does not wait
            for member in self.members:
                member.process.kill()
                member.process.wait()

    def work(self, units, take, bar):
        """Have done what of `units` is not finished, first what nobody else is at; `take(unit, result)` what each gives. `bar`
        moves on with them. Returns when all is finished or has failed. Raises Failed when no process is left, Stop when one was
        stopped, everything saved."""
        self.to_do, self.elsewhere, self.take, self.bar = deque(unit for unit in units if not unit.finished), deque(), take, bar
        self.units = units
        while True:
            self.hand_out()
            if not any(member.unit for member in self.members):
                return
            member, message = self.told.get()
            (name, what), = message.items()
            getattr(self, f"_{name}")(member, what)

    def hand_out(self):
        """Give each process that has none a unit, as long as there are any."""
        while self.to_do or self.elsewhere:
            member = next((one for one in self.members if one.unit is None), None) or self.another()
            if member is None:
                return
            wait = not self.to_do
            member.begin((self.elsewhere if wait else self.to_do).popleft(), wait)
            self.show()

    def another(self):
        """A further process; None where all are at work. Raises Failed where all are gone."""
        if self.waiting:
            number, card = self.waiting.popleft()
            self.members.append(Member(number, card, max(cores()//self.size, 1), self.told, self.first))
            return self.members[-1]
        if not self.members:
            gone = f"{'all ' if self.size > 1 else ''}{plural(self.size, 'process')} gone"
            raise Failed("--devices", f"expected at work until all is done, got {gone}")
        return None

    def show(self):
        moved = {id(one.unit): one.moved for one in self.members}
        self.bar.n = sum(max(unit.done, moved.get(id(unit), 0)) for unit in self.units)
        self.bar.set_description("; ".join(one.unit.name for one in self.members if one.unit) or "study")

    # ------------------------------------------------------------------------------------------- what a process tells
    def _progress(self, member, count):
        member.moved += count
        self.bar.update(count)

    def _done(self, member, result):
        unit, member.unit = member.unit, None
        self.take(unit, result)
        self.show()

    def _busy(self, member, sentence):
        unit, member.unit = member.unit, None
        if not unit.lock:
            raise Failed(member.name, sentence, Busy.status)
        self.elsewhere.append(unit)

    def _failed(self, member, sentence):
        raise Failed(f"{member.name}, at {member.unit.name}" if member.unit else member.name, sentence, Expected.status)

    def _stopped(self, member, number):
        raise Stop(number)

    def _ended(self, member, status):
        """Give what a process was at that is gone to another."""
        self.members.remove(member)
        if status > 0 and status != LOST:
            raise Failed(member.name, f"expected to work until all is done, got its end with status {status}", 1)
        if member.unit is not None:
            self.to_do.appendleft(member.unit)
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else "ended"
            warn(f"{member.name} {how} at {member.unit.name}, which is another's now")


# --------------------------------------------------------------------------------------------------------- those that work
@exit_with_message
def main():
    """Do what is told on standard input, until there is no more. Prints nothing but answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                          # what a library prints is no answer
    quiet()

    def tell(name, what):
        print(json.dumps({name: what}), file=answers, flush=True)

    try:
        serve(tell)
    except Stop as stop:
        tell("stopped", stop.number)
        sys.exit(stop.status)
    except KeyboardInterrupt as stop:
        tell("stopped", getattr(stop, "number", signal.SIGINT))
        raise
    except BrokenPipeError:                                # of one that was killed
        os._exit(LOST)
    except (Expected, MemoryError, OSError) as error:
        tell("failed", str(error) if isinstance(error, Expected) else refusal(error))
        sys.exit(Expected.status)


def serve(tell):
    """Do the orders of the one that started this process, as its first line says."""
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    first = json.loads(lines.readline())
    end_with(first["parent"])
    module, name = first["serve"].split(":")
    do = getattr(import_module(module), name)(**first["facts"])
    for line in lines:
        order = json.loads(line)
        try:
            tell("done", do(order["order"], lambda count=1: tell("progress", count), order["wait"]))
        except Busy as busy:
            tell("busy", str(busy))


if __name__ == "__main__":
    main()
