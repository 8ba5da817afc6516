"""Before any test here: what makes `import mlagents_envs` work beside a modern protobuf."""

import envproc.unity.messages  # noqa: F401
