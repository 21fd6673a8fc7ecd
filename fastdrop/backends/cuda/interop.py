"""Arrays of other libraries on a GPU: taken without a copy, and results given back in kind.

CuPy, PyTorch, JAX and Numba speak ``__cuda_array_interface__``; anything else that is on a GPU speaks DLPack. Work runs on the
stream that the caller's library has made current, or that its array names.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import numpy as np

from fastdrop import _validate
from fastdrop._device import BFLOAT16
from fastdrop.backends.cuda._arrays import CudaArray, nothing
from fastdrop.backends.cuda._jit import SIMULATED, cuda, use_stream
from fastdrop.errors import MissingDependencyError

JAX: Final = ("jax", "jaxlib")
DLPACK_KINDS: Final = {0: "i", 1: "u", 2: "f"}


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _SameStream:
    """An array for a library on whose current stream it was made: nobody has to wait."""

    def __init__(self, array: CudaArray) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": None}


def library_of(array: Any) -> str:
    """Return the name of the library that an array belongs to."""
    return type(array).__module__.partition(".")[0]


def current_stream(array: Any) -> tuple[int, Any]:
    """Return the handle of the stream that an array's library works on, and what keeps it alive."""
    match library_of(array):
        case "torch":
            stream = sys.modules["torch"].cuda.current_stream(array.device)
            return int(stream.cuda_stream), stream
        case "cupy":
            stream = sys.modules["cupy"].cuda.get_current_stream()
            return int(stream.ptr), stream
    named = getattr(array, "__cuda_array_interface__", {}).get("stream")
    return (0 if named is None else int(named)), array


def interface_of_dlpack(capsule: Any) -> dict[str, Any]:
    """Return what ``__cuda_array_interface__`` would say of the tensor in a DLPack capsule."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _DLTensor.from_address(get_pointer(capsule, b"dltensor"))
    if tensor.code not in DLPACK_KINDS or tensor.lanes != 1:
        _validate.fail_type("x", "an array of plain numbers", f"DLPack type code {tensor.code} with {tensor.lanes} lanes")
    dtype = np.dtype(f"{DLPACK_KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(dtype.itemsize * step for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    data = (tensor.data or 0) + tensor.byte_offset, False
    return {"shape": shape, "typestr": dtype.str, "data": data, "strides": strides, "version": 3}


def _bfloat16() -> np.dtype[Any]:
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise MissingDependencyError("bfloat16 needs the package ml_dtypes (hint: pip install ml_dtypes)") from error
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype


def _check_device(name: str, array: Any) -> None:
    """Raise unless an array is on the GPU on which this thread works."""
    if SIMULATED or not hasattr(array, "__dlpack_device__"):
        return
    number, here = array.__dlpack_device__()[1], cuda.current_context().device.id
    if number != here:
        _validate.fail_value(
            name, f"on GPU {here}, on which this thread works", f"GPU {number}", "(hint: numba.cuda.select_device)"
        )


def receive(array: Any, name: str = "x", *, to_write: bool = False) -> CudaArray:
    """Return an array of another library as one of ours, without a copy where it is C-contiguous; never a copy `to_write` into.

    Raises
    ------
    ValueError: it is not C-contiguous, and its library has no method to make it so, or it is to be written; or it is on another
    GPU than the one on which this thread works. `name` is its name in the error.
    """
    dtype = None
    _check_device(name, array)
    if library_of(array) == "torch":
        array = array.detach() if to_write else array.detach().contiguous()
        if array.dtype == sys.modules["torch"].bfloat16:  # which has no name in the interface
            array, dtype = array.view(sys.modules["torch"].int16), _bfloat16()
    elif library_of(array) == "cupy" and not to_write:
        array = sys.modules["cupy"].ascontiguousarray(array)
    elif library_of(array) in JAX:
        array.block_until_ready()  # its stream is its own
    use_stream(*current_stream(array))
    theirs = array
    if not (SIMULATED or hasattr(array, "__cuda_array_interface__")):
        capsule = array.__dlpack__()
        theirs = cuda.from_cuda_array_interface(interface_of_dlpack(capsule), owner=capsule, sync=False)
    elif not (SIMULATED or library_of(array) == "numba"):
        theirs = cuda.as_cuda_array(array, sync=False)
    if not theirs.is_c_contiguous():
        _validate.fail_value(name, "C-contiguous on a GPU", f"strides {theirs.strides} of shape {theirs.shape}")
    theirs = theirs if dtype is None else theirs.view(dtype)
    return CudaArray(theirs.reshape(theirs.size) if theirs.size else nothing(theirs.dtype), tuple(theirs.shape))


def give(result: CudaArray, like: Any) -> Any:
    """Return a result as an array of the library that `like` belongs to: without a copy, but for JAX."""
    library = library_of(like)
    if library == "torch":
        torch, bits = sys.modules["torch"], result.dtype.name == BFLOAT16
        tensor = torch.as_tensor(CudaArray(result.memory.view(np.int16), result.shape) if bits else result, device=like.device)
        return tensor.view(torch.bfloat16) if bits else tensor
    if library == "cupy":
        return sys.modules["cupy"].asarray(_SameStream(result))
    if library in JAX:  # which keeps no memory of others, and does not wait for their streams
        cuda.synchronize()
        return sys.modules["jax"].numpy.array(result, copy=True).block_until_ready()
    if library in ("numba", "numba_cuda", "numba_cuda_mlir"):
        return result.memory[: result.size].reshape(result.shape)
    return result
