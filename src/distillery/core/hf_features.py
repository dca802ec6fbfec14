"""What Hugging Face `datasets` should make of a parquet file's columns.

In: the fields of a schema. Out: the schema's metadata that `datasets` reads: columns of
struct{bytes, path} are images, everything else is what it is.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_IMAGE = {"_type": "Image"}


def hf_metadata(fields: Sequence[pa.Field]) -> dict[str, str]:
    """{`huggingface`: JSON} of the features."""
    features = {f.name: _IMAGE if pa.types.is_struct(f.type) else _hf_value(f) for f in fields}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _hf_value(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        return {"feature": _hf_value(field.type.value_field), "_type": "List"}
    if pa.types.is_struct(field.type):
        return {field.type.field(i).name: _hf_value(field.type.field(i))
                for i in range(field.type.num_fields)}  # fmt: skip
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(field.type), str(field.type)), "_type": "Value"}
