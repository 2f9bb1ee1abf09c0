"""`backhaul demo`: a site with a fleet of real agents on this machine.

Rule: it uses the site and the REST client as an operator does; nothing here exists for the demo in another package.
"""
