//! OpenAI's own packages for Python and Node.js, and LangChain's for its API, for the tests of the HTTP API.

use std::path::PathBuf;

use dovetail_tests::{cache, root};

use crate::registries::{NpmPackage, wheels};
use crate::setup;

const NODE: NpmPackage = NpmPackage {
    name: "openai@7.57.0",
    archive: "openai-7.57.0.tgz",
    sha256: "2e39589ca8d5a71aff84b921da8b7712d4ec7f0b1917b41fb0b7e69c34c609ce",
};
/// Ends well where Python finds the version that is wanted.
const OPENAI: &str =
    "import sys, openai; assert 'openai==' + openai.__version__ + ' ' in open(sys.argv[1]).read()";

/// The same, of LangChain's, which needs OpenAI's.
const LANGCHAIN: &str = "import sys, langchain_openai, importlib.metadata as of; wanted = open(sys.argv[1]).read(); \
    assert all(f'{name}=={of.version(name)} ' in wanted for name in ('langchain-openai', 'langchain-core', 'openai'))";

/// The folder that Python finds OpenAI's package in.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    let folder = cache().join("openai-python");
    let wanted = root().join("tests/tests/openai_clients/requirements.txt");
    wheels(&folder, &wanted, OPENAI)?;
    Ok(folder)
}

/// The folder that Python finds LangChain's package in.
pub(crate) fn langchain() -> anyhow::Result<PathBuf> {
    let folder = cache().join("langchain");
    let wanted = root().join("tests/tests/openai_clients/langchain-requirements.txt");
    wheels(&folder, &wanted, LANGCHAIN)?;
    Ok(folder)
}

/// The folder of the package for Node.js.
pub(crate) fn node() -> anyhow::Result<PathBuf> {
    setup::npm()?;
    NODE.unpacked(&cache().join("openai-node"))
}
