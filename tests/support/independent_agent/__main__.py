"""`python -m tests.support.independent_agent`.

Rule: settings come from the environment.
"""

import os

from tests.support.independent_agent.agent import Agent

if __name__ == "__main__":
    Agent(dict(os.environ)).run()
