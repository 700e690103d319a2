"""transformers' common configuration tests on TALLConfig."""

import unittest

from tall_hf.modeling.configuration_tall import TALLConfig

from ...test_configuration_common import ConfigTester
from .test_modeling_tall import TALLModelTester


class TALLConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = TALLModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=TALLConfig, has_text_modality=False, source_bridge="gated", alignment_hidden_size=48
        )

    def test_config(self):
        self.config_tester.run_common_tests()
