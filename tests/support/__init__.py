"""What several folders of tests share: servers, links, files. No tests here."""
