"""CompressAI is imported late, and quietly."""

import subprocess
import sys

CODE = """
import sys
import base_models.third_party as third_party
assert "compressai" not in sys.modules
print(third_party.compressai("zoo.image").model_urls["mbt2018"]["mse"][1])
"""


def test_compressai_is_imported_when_asked_for_and_says_nothing():
    done = subprocess.run([sys.executable, "-W", "default", "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("https://") and "jit.script" not in done.stderr
