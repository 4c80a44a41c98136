"""A module whose file is read when something in it is first asked for, by one thread, while others wait. Before Python 3.11.9 and
3.12.3 that of `importlib.util.LazyLoader` is found half read by a second thread."""
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType

_LOCK = RLock()                   # of the thread that reads a file, for which what it asks its own module goes through


def read_when_used(name: str) -> ModuleType:
    """The module called `name`, as it is where it was imported, or is being imported, already."""
    with _LOCK:
        if name not in sys.modules and (spec := find_spec(name)):
            sys.modules[name] = module_from_spec(spec)
            sys.modules[name].__class__ = _Unread
            return sys.modules[name]
    return import_module(name)


class _Unread(ModuleType):
    """Module of which nothing was asked for yet."""

    def __getattribute__(self, name):
        with _LOCK:
            if type(self) is _Unread:                      # else another thread has read it meanwhile
                self.__class__ = _BeingRead
                try:
                    self.__loader__.exec_module(self)
                except BaseException:
                    self.__class__ = _Unread               # whoever asks next tries again
                    raise
                self.__class__ = ModuleType
        return ModuleType.__getattribute__(self, name)


class _BeingRead(ModuleType):
    """Module whose file a thread reads, for which all others wait."""

    def __getattribute__(self, name):
        with _LOCK:
            return ModuleType.__getattribute__(self, name)
