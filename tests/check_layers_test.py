"""check_layers.py finds what it should: forbidden includes, planted in a small tree, and cycles."""
import pathlib
import tempfile
import unittest

from check_layers import check, read_layers

LAYERS = """kernels/base:
kernels/tensor: kernels/base
model: kernels/tensor kernels/base
"""
FILES = {
    "kernels/base/check.h": "#include <string>\n#include <nlohmann/json.hpp>\n",
    "kernels/tensor/tensor.h": '#include "kernels/base/check.h"\n#include "kernels/tensor/tensor.h"\n',
    "model/lm/lm.cpp": '#include "kernels/tensor/tensor.h"\n#include "model/lm/lm.h"\n#include "yaml.h"\n',
}


class CheckLayers(unittest.TestCase):
    def errors(self, files, layers=LAYERS):
        with tempfile.TemporaryDirectory() as root:
            for name, text in {**FILES, **files}.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            pathlib.Path(root, "layers.txt").write_text(layers)
            return check(root, read_layers(pathlib.Path(root, "layers.txt")))

    def test_a_clean_tree(self):
        self.assertEqual(self.errors({}), [])
        self.assertEqual(self.errors({"kernels/base/README.md": '#include "model/x.h"\n'}), [])

    def test_forbidden_includes(self):
        for line in ('#include "model/lm/lm.h"', '  #  include  "model/lm/lm.h"', "#include <model/lm/lm.h>"):
            for name in "kernels/base/a.h", "kernels/base/a.cpp", "kernels/base/a.cu", "kernels/base/sub/a.cuh":
                self.assertEqual(self.errors({name: "// a\n" + line + "\n"}),
                                 [f"{name}:2: kernels/base may not include model"])

    def test_only_what_is_declared(self):  # model reaches base by way of tensor, but has to say so
        layers = LAYERS.replace("kernels/tensor kernels/base", "kernels/tensor")
        self.assertEqual(self.errors({"model/a.h": '#include "kernels/base/check.h"\n'}, layers),
                         ["model/a.h:1: model may not include kernels/base"])

    def test_unknown_folders(self):
        self.assertEqual(self.errors({"model/a.h": '#include "third/party.h"\n'}),
                         ["model/a.h:1: model may not include third (no module of this project)"])
        self.assertEqual(self.errors({"kernels/new/a.h": '#include "kernels/base/check.h"\n'}),
                         ["kernels/new/a.h:1: a folder of no module may not include kernels/base"])

    def test_cycles(self):
        layers = LAYERS.replace("kernels/base:\n", "kernels/base: model\n")
        found = self.errors({}, layers)
        for folder in "kernels/base", "kernels/tensor", "model":
            self.assertIn(f"{folder}: depends on itself", found)
        self.assertEqual(self.errors({}, LAYERS.replace("model: ", "model: model ")), ["model: depends on itself"])


if __name__ == "__main__":
    unittest.main()
