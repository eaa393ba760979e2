"""Files that are written whole or not at all."""

from etils import epath

from mner_jax.config import UserError


def write(path, text):
  """Writes a file under another name first: who reads never finds half."""
  path = epath.Path(path)
  temporary = path.with_name(path.name + ".tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text)
    temporary.replace(path)
  except OSError as error:
    raise UserError(
      f"{path}: cannot be written ({error.strerror or error})"
    ) from None
