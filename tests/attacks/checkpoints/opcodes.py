"""Pickles by hand, each an instruction or a trick of the virtual machine."""

import struct
from collections.abc import Iterator
from functools import partial

from tests.attacks.cases import Case
from tests.attacks.checkpoints.files import file_case, saved, zipped


def cases() -> Iterator[Case]:
    """Pickles by hand, each an instruction or a trick of the virtual machine."""
    tricks = {
        "GLOBAL and REDUCE": b"cos\nsystem\n(X\x09\x00\x00\x00touch rantR.",
        "INST": b"(X\x09\x00\x00\x00touch ranios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX\x09\x00\x00\x00touch rano.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX\x09\x00\x00\x00touch ran\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\nX\x09\x00\x00\x00touch ran\x85}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "BUILD with a setstate": b"\x80\x02ccollections\nOrderedDict\n)R}X\x0c\x00\x00\x00"
        b"__setstate__cos\nsystem\nsbX\x09\x00\x00\x00touch ranb.",
        "PERSID": b"Pos.system\n.",
        "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x16serialization.os.system\x93"
        b"\x8c\x02id\x85R.",
        "a name of an allowed module": b"ctorch._utils\nimportlib\n.",
        "torch.storage's own loader": b"ctorch.storage\n_load_from_bytes\n(C\x03abctR.",
        "a call of a storage": b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.",
        "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
        "a call with a dict": b"\x80\x02ccollections\nOrderedDict\n}R.",
        "OrderedDict of pairs": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
        "DEFAULTDICT": b"\x80\x02ccollections\ndefaultdict\ncos\nsystem\n\x85R.",
        "READONLY_BUFFER": b"\x80\x05C\x01a\x98.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "BYTEARRAY8 of 2^60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".",
        "BINBYTES8 of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
        "BINUNICODE8 of 2^60": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
        "BINUNICODE of 4 GB": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b".",
        "FRAME of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "LONG4 of 2 GB": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "LONG4 negative": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        "INT of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
        "LONG of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n.",
        "FLOAT": b"F1e999\n.",
        "LONG_BINPUT at 2^32 - 1": b"\x80\x02Nr\xff\xff\xff\xff.",
        "BINGET of nothing": b"\x80\x02h\x07.",
        "MEMOIZE of nothing": b"\x80\x04\x94.",
        "an empty stack": b"\x80\x02.",
        "POP of nothing": b"\x80\x020.",
        "two values": b"\x80\x02NN.",
        "a mark alone": b"\x80\x02(.",
        "a mark as a value": b"\x80\x02}X\x01\x00\x00\x00a(s.",
        "no mark": b"\x80\x02Nt.",
        "APPEND to a dict": b"\x80\x02}Na.",
        "SETITEM on a list": b"\x80\x02]NNs.",
        "an odd SETITEMS": b"\x80\x02}(Nu.",
        "a key that is a list": b"\x80\x02}]Ns.",
        "a dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a state_dict in itself": b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.",
        "protocol 255": b"\x80\xff}.",
        "an unknown instruction": b"\x80\x02\xff.",
        "no end": b"\x80\x02}",
        "nothing": b"",
        "200,000 nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "200,000 nested tuples": b"\x80\x02N" + b"\x85" * 200_000 + b".",
        "a key of tuples nested 100 times, doubled": b"\x80\x02}N"
        + b"q\x00h\x00\x86" * 100
        + b"Ns.",
        "ten million Nones": b"\x80\x02(" + b"N" * 10**7 + b"t.",
        "ten million dicts": b"\x80\x02(" + b"}" * 10**7 + b"l.",
        "ten million frames": b"\x80\x04" + (b"\x95" + b"\x00" * 8) * 10**6 * 3 + b"}.",
        "a list doubled 60 times": b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * 60 + b".",
    }
    for name, pickled in tricks.items():
        yield file_case(f"opcode: {name}, in a zip", partial(zipped, pickled), severity="critical")
        if pickled[:1] == b"\x80":
            yield file_case(
                f"opcode: {name}, bare", lambda pickled=pickled: pickled, severity="critical"
            )
            older = saved({}, _use_new_zipfile_serialization=False)[:137] + pickled
            yield file_case(
                f"opcode: {name}, older form", lambda older=older: older, severity="critical"
            )
