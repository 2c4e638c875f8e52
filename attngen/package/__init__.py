"""Generated packages: a spec as an importable Python package that needs only torch and triton.

write_package     the package of a spec, in a folder
package_files     its files, as text
"""

from attngen.package.files import package_files
from attngen.package.folder import write_package

__all__ = ["package_files", "write_package"]
